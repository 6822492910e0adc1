"""The pipeline is killed for real, on a shrunken recipe; and what the page says is what happened."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.pipeline import ENVIRONMENT, FinishedRun, git, run_dvc, warm_environment
from tools.studies.chaos import ChaosResult, Fault, chaos_page, compare_disturbed, run_chaos
from tools.studies.killable_pipeline import Pipeline


@pytest.mark.slow
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


_PIPELINE = """
stages:
  train:
    cmd: mkdir -p metrics models/made && date +%s%N > metrics/made.json && echo weights > models/made/model.safetensors
    outs: [models/made]
    metrics: [metrics/made.json: {cache: false}]
"""


def test_a_pipeline_that_is_not_the_same_twice_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both runs in clones, without a kill; the moment when it ran is a metric."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    origin = tmp_path / "origin"
    origin.mkdir()
    monkeypatch.chdir(origin)
    git(origin, "init", "--quiet")
    run_dvc(origin, "init", "--quiet")
    (origin / "dvc.yaml").write_text(_PIPELINE, encoding="utf-8")
    git(origin, "add", "--all")
    git(origin, "commit", "--quiet", "--message", "a pipeline")
    prepared: list[str] = []
    result = run_chaos(tmp_path, "quick", kills=0, seed=0, prepare=lambda root: prepared.append(root.name))
    assert prepared == ["calm", "disturbed"]
    assert result.different == ["metrics/made.json"]
    assert (result.files, result.faults) == (2, [])
    assert not result.survived
    assert result.undisturbed_seconds > 0 < result.disturbed_seconds


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
