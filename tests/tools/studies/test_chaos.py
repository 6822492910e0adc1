"""The pipeline is killed for real, on a shrunken recipe; and what the page says is what happened."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.pipeline import FinishedRun, git, warm_environment
from tools.studies.chaos import ChaosResult, Fault, chaos_page, compare_disturbed
from tools.studies.killable_pipeline import Pipeline

pytestmark = pytest.mark.slow


@pytest.mark.large
def test_a_pipeline_that_is_killed_again_and_again_gives_the_same_bits(
    finished: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = tmp_path / "disturbed"
    git(tmp_path, "clone", "--quiet", str(finished.folder), str(origin))
    git(origin, "reset", "--quiet", "--hard", "HEAD^")  # before there were results
    assert not (origin / "dvc.lock").exists()
    for name, value in warm_environment().items():
        monkeypatch.setenv(name, value)
    calm = ChaosResult("quick", finished.seconds)
    result = compare_disturbed(Pipeline(origin), Pipeline(finished.folder), calm, kills=6, seed=1)
    assert result.different == []
    metrics = list((origin / "metrics").rglob("*.json"))
    trainings = list((origin / "metrics/train").glob("*.json"))
    assert result.files == len(metrics) + len(trainings) + len(["models/aerofuse"])  # each training leaves a model
    assert sum("kill -9" in fault.kind for fault in result.faults) == 6
    assert sum("kill -15" in fault.kind for fault in result.faults) == 1
    assert any(fault.repeated_epochs is not None for fault in result.faults)
    assert result.most_repeated_epochs <= 1.0
    assert result.survived


def test_the_page_names_faults_and_differences() -> None:
    faults = [
        Fault("kill -9", 12.0, "train_stage_a", 2.0, 1.25),
        Fault("state cut short after kill -9", 12.0, "train_stage_a", 3.0, 1.0),
        Fault("kill -9", 14.0, "prepare"),
    ]
    result = ChaosResult("quick", 100.0, 180.0, faults, files=20)
    assert result.survived
    page = chaos_page(result)
    assert "Of 20 files of weights and metrics none differ. No kill cost more than 0.75 epochs" in page
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines()]
    assert ["12", "kill -9", "train_stage_a", "2.00", "1.25", "0.75"] in rows
    assert ["14", "kill -9", "prepare", "", "", ""] in rows
    assert ["kill -9", "2"] in rows
    different = dataclasses.replace(result, different=["metrics/compare.json"])
    assert "1 differ" in chaos_page(different)
    assert "Different: `metrics/compare.json`" in chaos_page(different)
    assert not different.survived
    assert not dataclasses.replace(result, faults=[Fault("kill -9", 1.0, "train_stage_a", 2.0, 0.5)]).survived
