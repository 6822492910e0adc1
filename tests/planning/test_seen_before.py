"""Profiles of chains that are kept: for which chain, and in which files."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from aerofuse.backbones.backbone import Backbone
from aerofuse.checkpointing.chain import Chain
from aerofuse.planning import seen_before
from aerofuse.planning.clocks import Measured
from aerofuse.planning.planner import Planner
from aerofuse.planning.profiling import ChainProfile, profile_chain
from aerofuse.planning.seen_before import FOLDER_VARIABLE, nothing_seen_before
from tests.backbones.conftest import shrunken_backbone
from tests.conftest import ESTIMATED


@pytest.fixture
def profiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """Return the lengths of the chains that are profiled from here on. What is kept is kept in `tmp_path`."""
    lengths: list[int] = []

    def counting(fake: Chain, *others: Any) -> ChainProfile:
        lengths.append(len(fake))
        return profile_chain(fake, *others)

    monkeypatch.setattr(seen_before, "profile_chain", counting)
    monkeypatch.setattr(seen_before, "_seen", {})
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    return lengths


def plan(backbone: Backbone, batch: int = 2, share: float = 0.6) -> Planner:
    planner = Planner(backbone, (batch, 3, 64, 64), stopwatch=ESTIMATED)
    planner.plan(share)
    return planner


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in another process."""
    monkeypatch.setattr(seen_before, "_seen", {})


def test_an_equal_chain_is_profiled_once(profiled: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    first = plan(shrunken_backbone("convnext"))
    plan(shrunken_backbone("convnext"), share=0.8)
    assert len(profiled) == 1
    forget(monkeypatch)
    again = plan(shrunken_backbone("convnext"))
    assert len(profiled) == 1
    assert again.curve() == first.curve()
    assert again.plan(0.6) == first.plan(0.6)


def test_another_chain_is_profiled(profiled: list[int]) -> None:
    plan(shrunken_backbone("convnext"))
    plan(shrunken_backbone("convnext"), batch=3)
    frozen = shrunken_backbone("convnext")
    next(iter(frozen.parameters())).requires_grad_(False)
    plan(frozen)
    Planner(shrunken_backbone("convnext"), (2, 3, 64, 64), stopwatch=ESTIMATED, precision="bf16")
    Planner(shrunken_backbone("convnext"), (2, 3, 64, 64), stopwatch=Measured(rounds=1))
    assert len(profiled) == 5


def test_changed_code_and_torch_are_told(profiled: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plan(shrunken_backbone("convnext"))
    for name, value in (("_code_of_planners", lambda: []), ("_code_of", lambda _classes: ["changed"])):
        forget(monkeypatch)
        monkeypatch.setattr(seen_before, name, value)
        plan(shrunken_backbone("convnext"))
    forget(monkeypatch)
    monkeypatch.setattr(torch, "__version__", "0.1")
    plan(shrunken_backbone("convnext"))
    assert len(profiled) == len(list(tmp_path.iterdir())) == 4


def test_classes_that_no_file_defines_alone_are_not_kept(profiled: list[int], tmp_path: Path) -> None:
    backbone = shrunken_backbone("convnext")
    block = backbone.get_submodule("model.stages.0.blocks.0")

    class Own(type(block)):  # type: ignore[misc]
        """Another one each time that this function runs."""

    block.__class__ = Own
    plan(backbone)
    assert profiled
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "{", "[]", '{"kinds": [], "units": [["stem", 0]], "starts": [0]}'])
def test_a_broken_file_is_made_anew(
    profiled: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    plan(shrunken_backbone("convnext"))
    (file,) = tmp_path.iterdir()
    good = file.read_bytes()
    file.write_text(content)
    forget(monkeypatch)
    with caplog.at_level(logging.WARNING):
        plan(shrunken_backbone("convnext"))
    assert len(profiled) == 2
    assert "is not used" in caplog.text
    assert file.read_bytes() == good


def test_where_nothing_can_be_written_plans_are_made(
    profiled: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "file" / "folder"))
    plan(shrunken_backbone("convnext"))
    assert len(profiled) == 1
    assert "profiles of units are not kept" in caplog.text


def test_old_files_go(profiled: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(seen_before, "_MOST_FILES", 2)
    for batch in (1, 2, 3):
        plan(shrunken_backbone("convnext"), batch=batch)
    assert len(profiled) == 3
    assert len(list(tmp_path.iterdir())) == 2


def test_the_default_folder_is_below_the_users_caches(
    profiled: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    plan(shrunken_backbone("convnext"))
    assert len(profiled) == len(list((tmp_path / "caches/aerofuse/profiles").iterdir())) == 1


def test_a_measurement_sees_nothing_of_before_and_leaves_nothing(profiled: list[int], tmp_path: Path) -> None:
    plan(shrunken_backbone("convnext"))
    with nothing_seen_before():
        plan(shrunken_backbone("convnext"))
        plan(shrunken_backbone("convnext"), batch=3)
    plan(shrunken_backbone("convnext"))
    assert len(profiled) == 3
    assert len(list(tmp_path.iterdir())) == 1
