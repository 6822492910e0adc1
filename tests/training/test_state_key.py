"""The key of a training's state covers parameters, code and data, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from aerofuse.training.state_folder import training_key

SETTINGS = {"seed": 0, "rate": 0.1}
INPUTS = (Path("data"), Path("models/cnn.safetensors"))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("data/train.arrow", "models/cnn.safetensors", "src/loop.py", "src/unused.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    loop = ModuleType("aerofuse.loop_of_the_test")
    loop.__file__ = str(tmp_path / "src/loop.py")
    monkeypatch.setitem(sys.modules, loop.__name__, loop)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _write(name: str) -> Callable[[Path], object]:
    return lambda root: (root / name).write_text("changed")


@pytest.mark.parametrize(
    "change",
    [_write("src/loop.py"), _write("data/train.arrow"), _write("models/cnn.safetensors"), _write("data/more.arrow")],
    ids=["code", "data", "weights", "more data"],
)
def test_what_would_give_another_model_changes_it(root: Path, change: Callable[[Path], object]) -> None:
    before = training_key(SETTINGS, INPUTS)
    change(root)
    assert training_key(SETTINGS, INPUTS) != before


def test_every_setting_counts(root: Path) -> None:
    assert training_key(SETTINGS, INPUTS) == training_key(dict(SETTINGS), INPUTS)
    for name in SETTINGS:
        assert training_key(SETTINGS | {name: 9}, INPUTS) != training_key(SETTINGS, INPUTS)


def test_what_is_not_used_leaves_it(root: Path) -> None:
    before = training_key(SETTINGS, INPUTS)
    _write("src/unused.py")(root)
    _write("models/transformer.safetensors")(root)
    assert training_key(SETTINGS, INPUTS) == before


def test_code_in_a_copy_of_the_repository_is_the_same_code(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = training_key(SETTINGS, INPUTS)
    (root / "copy").mkdir()
    copy = (root / "src/loop.py").rename(root / "copy/loop.py")
    monkeypatch.setattr(sys.modules["aerofuse.loop_of_the_test"], "__file__", str(copy))
    assert training_key(SETTINGS, INPUTS) == before


def test_what_is_missing_is_named(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere, which the training starts from, is not there; `dvc repro`"):
        training_key(SETTINGS, [Path("nowhere")])
