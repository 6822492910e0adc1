"""The real pipeline on a shrunken recipe, in a clone of the repository, through DVC."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import aerofuse
from aerofuse.models.files import load_model
from tests.pipeline import FinishedRun, git, ran, run_dvc_warm, scores_by_epoch, tracked_runs, tracked_trainings
from tests.s3_server import add_remote, s3_server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reproduced(finished: FinishedRun) -> Path:
    """To be read only."""
    return finished.folder


@pytest.fixture(scope="module")
def copy(finished: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished.copy(tmp_path_factory.mktemp("copy") / "aerofuse")


def test_the_pipeline_compares_three_models(reproduced: Path) -> None:
    comparison = json.loads((reproduced / "reports/comparison.json").read_text())
    page = (reproduced / "reports/comparison.md").read_text()
    for model in ("single-task", "multi-task", "hybrid"):
        assert model in page
    for model in ("single_task", "multi_task", "hybrid"):
        metrics = json.loads((reproduced / f"metrics/evaluate/{model}.json").read_text())[model]
        assert 0 <= metrics["type_top1"] <= 1
        assert metrics["type_labelled"] > 20
    assert comparison


def test_the_pipeline_hands_out_a_model(reproduced: Path) -> None:
    predictor = aerofuse.load(reproduced / "models/aerofuse")
    assert predictor.predict(reproduced / "docs/photos/a380-800.jpg").type in predictor.record.classes.types
    metrics = json.loads((reproduced / "metrics/export.json").read_text())["export"]
    assert metrics["onnx_same_top1"] == metrics["torch_same_top1"] == 1.0
    assert metrics["onnx_max_difference"] <= 1e-4


def test_a_second_run_does_nothing(copy: Path) -> None:
    output = run_dvc_warm(copy, "repro").stdout
    assert ran(output) == set()
    assert "up to date" in output
    assert git(copy, "status", "--short") == ""


def test_every_training_stage_is_an_mlflow_run_under_one_parent(reproduced: Path) -> None:
    stages = tracked_trainings(reproduced)
    assert {run.info.run_name for run in stages} == {
        f"train_{name}" for name in ("single_task", "multi_task", "stage_a", "stage_b", "stage_c")
    }
    assert len({run.data.tags["mlflow.parentRunId"] for run in stages}) == 1
    for run in stages:
        written = json.loads((reproduced / f"metrics/train/{run.info.run_name}.json").read_text())[run.info.run_name]
        scores = scores_by_epoch(reproduced, run)
        assert scores.keys() == {1, 2}
        assert scores[written["best_epoch"]] == pytest.approx(written["score"], abs=1e-6)
        assert scores[written["best_epoch"]] == max(scores.values())


def test_the_results_are_an_mlflow_run_with_the_report_and_its_figures(reproduced: Path) -> None:
    (run,) = [run for run in tracked_runs(reproduced) if run.info.run_name == "compare"]
    hybrid = json.loads((reproduced / "metrics/evaluate/hybrid.json").read_text())["hybrid"]
    assert run.data.metrics["hybrid/type_top1"] == pytest.approx(hybrid["type_top1"], abs=1e-6)
    kept = Path(run.info.artifact_uri.removeprefix("file://"))
    assert (kept / "index.html").read_bytes() == (reproduced / "reports/index.html").read_bytes()
    drawn = {file.name for file in (reproduced / "reports/charts").iterdir()}
    assert {"curve-score.png", "memory.png"} <= drawn == {file.name for file in (kept / "charts").iterdir()}


def test_all_that_is_pushed_is_pulled_elsewhere_and_not_run_again(copy: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "aerofuse"
    git(copy, "clone", "--quiet", str(copy), str(elsewhere))
    with s3_server(tmp_path / "server") as server:
        add_remote(copy, server)
        run_dvc_warm(copy, "push")
        add_remote(elsewhere, server)
        run_dvc_warm(elsewhere, "pull")
    assert ran(run_dvc_warm(elsewhere, "repro").stdout) == set()
    assert git(elsewhere, "status", "--short") == ""
    model, _ = load_model(elsewhere / "models/hybrid")
    assert sum(parameter.numel() for parameter in model.parameters()) > 1_000_000
