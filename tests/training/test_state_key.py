"""The key of a training's state covers parameters, code and data, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from aerofuse.training.state_folder import find_training_key

DVC = """
stages:
  train:
    cmd: train
    params: [seed, 'recipes.${recipe}.training']
    deps: [data, src/loop.py]
  other:
    cmd: other
    params: []
    deps: [missing]
"""
PARAMS = "recipe: quick\nseed: 0\nunused: 1\nrecipes: {quick: {training: {rate: 0.1}}, base: {training: {rate: 0.2}}}\n"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "dvc.yaml").write_text(DVC)
    (tmp_path / "params.yaml").write_text(PARAMS)
    for name in ("data/train.arrow", "src/loop.py", "src/unused.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _replace(name: str, old: str, new: str) -> Callable[[Path], object]:
    return lambda root: (root / name).write_text((root / name).read_text().replace(old, new))


@pytest.mark.parametrize(
    "change",
    [
        _replace("params.yaml", "seed: 0", "seed: 1"),
        _replace("params.yaml", "rate: 0.1", "rate: 0.3"),
        _replace("params.yaml", "recipe: quick", "recipe: base"),
        _replace("src/loop.py", "loop", "pool"),
        _replace("data/train.arrow", "train", "other"),
        lambda root: (root / "data/more.arrow").write_text(""),
    ],
)
def test_what_would_give_another_model_changes_it(root: Path, change: Callable[[Path], object]) -> None:
    before = find_training_key("train", batch_size=8)
    change(root)
    assert find_training_key("train", batch_size=8) != before


@pytest.mark.parametrize(
    "change",
    [
        _replace("params.yaml", "unused: 1", "unused: 2"),
        _replace("params.yaml", "rate: 0.2", "rate: 0.4"),
        _replace("src/unused.py", "unused", "changed"),
        _replace("dvc.yaml", "cmd: other", "cmd: another"),
        lambda root: (root / "data/__pycache__").mkdir() or (root / "data/__pycache__/x.pyc").write_text(""),
    ],
)
def test_what_would_not_leaves_it(root: Path, change: Callable[[Path], object]) -> None:
    before = find_training_key("train", batch_size=8)
    change(root)
    assert find_training_key("train", batch_size=8) == before


def test_what_was_found_before_training_counts(root: Path) -> None:
    assert find_training_key("train", batch_size=8) != find_training_key("train", batch_size=9)


def test_what_is_missing_is_named(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing, which dvc\.yaml says that the stage depends on"):
        find_training_key("other")
    with pytest.raises(ValueError, match=r"dvc\.yaml has no stage 'bogus'"):
        find_training_key("bogus")
