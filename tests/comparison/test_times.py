from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aerofuse.common.params import PARAMS_FILE
from aerofuse.comparison.times import MemoryRecord, TrainingTimes
from stages.compare import trained_batch_size

SPENT = {
    "seconds": 9.0,
    "views": 1,
    "seconds_seeing_photos": 0.0,
    "epochs": 1,
    "images": 90,
    "images_per_second": 10.0,
    "device": "CPU",
    "busy_elsewhere": 0.0,
    "peak_memory_bytes": None,
    "seconds_saving_state": 0.1,
    "resumed": 0,
}
MEMORY = {
    "batch_size": 48,
    "predicted_peak_bytes": 1000,
    "peak_bytes": 990,
    "measured": "counted in one step",
    "available_bytes": 2000,
    "policy": "no checkpointing",
    "advice": "",
}


def write(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "train_stage_c.json"
    path.write_text(json.dumps(content))
    return path


def test_times_with_and_without_a_record_of_memory(tmp_path: Path) -> None:
    before = TrainingTimes.read(write(tmp_path, SPENT))
    path = write(tmp_path, SPENT | {"memory": MEMORY})
    assert TrainingTimes.read(path) == before
    assert MemoryRecord.read(path).batch_size == 48


@pytest.mark.parametrize("content", [SPENT | {"extra": 1}, {"memory": MEMORY}, {}])
def test_anything_else_is_refused(content: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must hold exactly seconds, "):
        TrainingTimes.read(write(tmp_path, content))


def test_a_record_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no 'memory'; `dvc repro --force train_hybrid@stage_c` writes it"):
        MemoryRecord.read(write(tmp_path, SPENT))


def test_a_record_of_an_older_version_is_refused(tmp_path: Path) -> None:
    older = {"treatment" if name == "policy" else name: value for name, value in MEMORY.items()}
    with pytest.raises(ValueError, match=r"exactly .*policy.*; it holds .*treatment.*--force train_hybrid@stage_c"):
        MemoryRecord.read(write(tmp_path, SPENT | {"memory": older}))


@pytest.mark.parametrize(("asked", "expected"), [("16", 16), ("auto", 48)])
def test_the_batch_that_was_trained_with(
    asked: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phase = f"{{epochs: 1, learning_rate: 0.1, batch_size: {asked}, accumulation_steps: 1}}"
    (tmp_path / PARAMS_FILE).write_text(f"recipe: base\nrecipes: {{base: {{train_stage_c: {phase}}}}}\n")
    (tmp_path / "reports/times").mkdir(parents=True)
    write(tmp_path / "reports/times", SPENT | {"memory": MEMORY})
    monkeypatch.chdir(tmp_path)
    assert trained_batch_size("train_stage_c") == expected
