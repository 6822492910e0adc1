"""Profiles of kinds of units that are kept: of which kind, and in which files."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from aerofuse.backbones.backbone import Backbone
from aerofuse.checkpointing.chain import Unit
from aerofuse.planning import seen_before
from aerofuse.planning.clocks import Measured
from aerofuse.planning.planner import Planner
from aerofuse.planning.profiling import Profiler
from aerofuse.planning.seen_before import FOLDER_VARIABLE, nothing_seen_before
from aerofuse.planning.unit_costs import UnitProfile
from tests.backbones.conftest import SMALLEST, shrunken_backbone, small_batch
from tests.conftest import ESTIMATED


@pytest.fixture
def profiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Return the names of the units that are profiled from here on. What is kept is kept in `tmp_path`."""
    names: list[str] = []
    profile = Profiler._profile

    def counting(self: Profiler, unit: Unit, *others: Any, **settings: Any) -> UnitProfile:
        names.append(unit.name)
        return profile(self, unit, *others, **settings)

    monkeypatch.setattr(Profiler, "_profile", counting)
    monkeypatch.setattr(seen_before, "_seen", {})
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    return names


def plan(backbone: Backbone, batch: int = 2, share: float = 0.6) -> Planner:
    planner = Planner(backbone, (batch, 3, 64, 64), stopwatch=ESTIMATED)
    planner.plan(share)
    return planner


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in another process."""
    monkeypatch.setattr(seen_before, "_seen", {})


def test_each_kind_is_profiled_once(profiled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    first = plan(shrunken_backbone("convnext"))
    kinds = len(profiled)
    assert 1 < kinds < len([unit for chain in first.plan(0.6).chains for unit in chain])
    plan(shrunken_backbone("convnext"), share=0.8)
    assert len(profiled) == kinds
    forget(monkeypatch)
    again = plan(shrunken_backbone("convnext"))
    assert len(profiled) == kinds
    assert again.curve() == first.curve()
    assert again.plan(0.6) == first.plan(0.6)


def test_halves_are_of_one_kind_whatever_the_other_half_is(profiled: list[str]) -> None:
    """Swin's blocks look at shifted windows in turn. Their MLPs are equal."""
    Planner(shrunken_backbone("swin"), small_batch(SMALLEST["swin"]).shape, stopwatch=ESTIMATED)
    halves = [name.removeprefix("model.layers.1.") for name in profiled if name.startswith("model.layers.1.blocks")]
    assert halves == ["blocks.0:attention", "blocks.0:mlp", "blocks.1:attention"]


def test_another_kind_is_profiled(profiled: list[str]) -> None:
    plan(shrunken_backbone("convnext"))
    kinds = list(profiled)
    plan(shrunken_backbone("convnext"), batch=3)
    Planner(shrunken_backbone("convnext"), (2, 3, 64, 64), stopwatch=Measured(rounds=1))
    assert profiled == 3 * kinds
    Planner(shrunken_backbone("convnext"), (2, 3, 64, 64), stopwatch=ESTIMATED, precision="bf16")
    assert profiled[3 * len(kinds)] == kinds[0]
    frozen = shrunken_backbone("convnext")
    next(iter(frozen.parameters())).requires_grad_(False)
    plan(frozen)
    assert profiled[-1] == kinds[0]


def test_changed_code_and_torch_are_told(profiled: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plan(shrunken_backbone("convnext"))
    kinds = list(profiled)
    for name, value in (("_code_of_planners", lambda: []), ("_code_of", lambda _classes: ["changed"])):
        forget(monkeypatch)
        monkeypatch.setattr(seen_before, name, value)
        plan(shrunken_backbone("convnext"))
    forget(monkeypatch)
    monkeypatch.setattr(torch, "__version__", "0.1")
    plan(shrunken_backbone("convnext"))
    assert profiled == 4 * kinds
    assert len(list(tmp_path.iterdir())) == 4 * len(kinds)


def test_classes_that_no_file_defines_alone_are_not_kept(
    profiled: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    backbone = shrunken_backbone("convnext")
    block = backbone.get_submodule("model.stages.0.blocks.0")

    class Own(type(block)):  # type: ignore[misc]
        """Another one each time that this function runs."""

    block.__class__ = Own
    plan(backbone)
    assert len(list(tmp_path.iterdir())) == len(profiled) - 1
    profiled.clear()
    forget(monkeypatch)
    plan(backbone)
    assert profiled == ["model.stages.0.blocks.0"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"policies": []}', '{"name": "stem", "policies": [[]]}'])
def test_a_broken_file_is_made_anew(
    profiled: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    plan(shrunken_backbone("convnext"))
    kinds = len(profiled)
    file = next(tmp_path.iterdir())
    good = file.read_bytes()
    file.write_text(content)
    forget(monkeypatch)
    with caplog.at_level(logging.WARNING):
        plan(shrunken_backbone("convnext"))
    assert len(profiled) == kinds + 1
    assert "is not used" in caplog.text
    assert file.read_bytes() == good


def test_where_nothing_can_be_written_plans_are_made(
    profiled: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "file" / "folder"))
    plan(shrunken_backbone("convnext"))
    assert profiled
    assert "profiles of units are not kept" in caplog.text


def test_old_files_go(profiled: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(seen_before, "_MOST_FILES", 2)
    plan(shrunken_backbone("convnext"))
    assert len(profiled) > 2
    assert len(list(tmp_path.iterdir())) == 2


def test_another_process_may_remove_a_file_meanwhile(
    profiled: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "gone.json").symlink_to(tmp_path / "removed")
    plan(shrunken_backbone("convnext"))
    assert profiled
    assert not caplog.messages


def test_the_default_folder_is_below_the_users_caches(
    profiled: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    plan(shrunken_backbone("convnext"))
    assert len(profiled) == len(list((tmp_path / "caches/aerofuse/profiles").iterdir())) > 0


def test_a_measurement_sees_nothing_of_before_and_leaves_nothing(profiled: list[str], tmp_path: Path) -> None:
    plan(shrunken_backbone("convnext"))
    kinds = list(profiled)
    with nothing_seen_before():
        plan(shrunken_backbone("convnext"))
        plan(shrunken_backbone("convnext"), batch=3)
    plan(shrunken_backbone("convnext"))
    assert profiled == 3 * kinds
    assert len(list(tmp_path.iterdir())) == len(kinds)
