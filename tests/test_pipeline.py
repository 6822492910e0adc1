"""The real pipeline on a shrunken recipe, in a clone of the repository, through DVC."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline import ENVIRONMENT, clone_on_a_shrunken_recipe, git, ran, run_dvc

pytestmark = pytest.mark.slow

STAGES_OF_FUSION = {
    "check_params",
    "train_stage_a",
    "train_stage_b",
    "train_stage_c",
    "evaluate@hybrid",
    "compare",
}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone_on_a_shrunken_recipe(tmp_path_factory.mktemp("clone") / "aerofuse")


@pytest.fixture(scope="module")
def reproduced(clone: Path) -> Path:
    """The clone after `dvc repro`, its results committed."""
    run_dvc(clone, "repro")
    git(clone, "add", "--all")
    git(clone, "commit", "--quiet", "--message", "results")
    return clone


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


def test_a_second_run_does_nothing(reproduced: Path) -> None:
    output = run_dvc(reproduced, "repro").stdout
    assert ran(output) == set()
    assert "up to date" in output
    assert git(reproduced, "status", "--short") == ""


def _runs(folder: Path) -> list[Any]:
    """The MLflow runs of training stages, newest first."""
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    runs: list[Any] = mlflow.search_runs(experiment_names=["aerofuse"], output_format="list")
    return [run for run in runs if "mlflow.parentRunId" in run.data.tags]


def test_every_training_stage_is_an_mlflow_run_under_one_parent(reproduced: Path) -> None:
    stages = _runs(reproduced)
    assert {run.info.run_name for run in stages} == {
        f"train_{name}" for name in ("single_task", "multi_task", "stage_a", "stage_b", "stage_c")
    }
    assert len({run.data.tags["mlflow.parentRunId"] for run in stages}) == 1
    for run in stages:
        written = json.loads((reproduced / f"metrics/train/{run.info.run_name}.json").read_text())
        assert run.data.metrics["score"] == pytest.approx(written[run.info.run_name]["score"], abs=1e-6)


@pytest.mark.large
def test_another_fusion_method_runs_the_hybrid_again_and_nothing_else(reproduced: Path) -> None:
    output = run_dvc(reproduced, "exp", "run", "--name", "attention", "-S", "fusion_method=attention").stdout
    record = json.loads((reproduced / "models/hybrid/model.json").read_text())
    difference = json.loads(run_dvc(reproduced, "metrics", "diff", "--json").stdout)
    git(reproduced, "checkout", "--quiet", "--force", "HEAD")
    run_dvc(reproduced, "checkout", "--force")
    assert ran(output) == STAGES_OF_FUSION
    assert record["architecture"]["fusion_method"] == "attention"
    error = difference["metrics/evaluate/hybrid.json"]["hybrid.clarity_rmse"]
    assert error["new"] != error["old"]
    assert "metrics/evaluate/multi_task.json" not in difference


@pytest.mark.parametrize(
    ("settings", "messages"),
    [
        (
            (
                "fusion_method=bogus",
                "seed=-1",
                "recipes.quick.train_stage_a.epochs=0",
                "recipes.quick.train_stage_c.batch_size=automatic",
                "data.split.train=0.9",
            ),
            (
                "fusion_method: 'bogus' is not allowed: Input should be 'concat', 'add' or 'attention'",
                "seed: -1 is not allowed",
                "recipes.quick.train_stage_a.epochs: 0 is not allowed",
                "recipes.quick.train_stage_c.batch_size: 'automatic' is not allowed: "
                "write a number of images, at least 1, or auto",
                "train + validation + test must be 1",
            ),
        ),
        (("recipe=enormous",), ("enormous",)),
        (("recipes.quick.backbones.cnn=convnext_tinny",), ("near names: convnext_tiny",)),
    ],
    ids=["values", "recipe", "backbone"],
)
def test_a_bad_value_stops_before_any_output_is_lost(
    reproduced: Path, settings: tuple[str, ...], messages: tuple[str, ...]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (reproduced / "models").rglob("*.safetensors")}
    done = run_dvc(reproduced, "exp", "run", *(f"-S={setting}" for setting in settings), check=False)
    assert done.returncode != 0
    for message in messages:
        assert message in done.stdout
    assert {path: path.stat().st_mtime_ns for path in (reproduced / "models").rglob("*.safetensors")} == before
    git(reproduced, "checkout", "--quiet", "--force", "HEAD")
    assert git(reproduced, "status", "--short") == ""
    # Mended, nothing is run again.
    assert ran(run_dvc(reproduced, "repro").stdout) <= {"check_params"}
    assert git(reproduced, "status", "--short") == ""


@pytest.mark.large
def test_batch_and_budget_on_auto(reproduced: Path) -> None:
    settings = (
        "recipes.quick.training.gradient_checkpointing.enabled=true",
        "recipes.quick.training.gradient_checkpointing.budget=auto",
        "recipes.quick.training.memory_reserve=0.0",
        "recipes.quick.training.largest_batch_size=40",
        "recipes.quick.train_stage_c.batch_size=auto",
    )
    output = run_dvc(reproduced, "exp", "run", "--name", "auto", *(f"-S={setting}" for setting in settings)).stdout
    stages = [path.stem for path in (reproduced / "reports/times").glob("train_*.json")]
    memory = {stage: json.loads((reproduced / f"reports/times/{stage}.json").read_text())["memory"] for stage in stages}
    compared = json.loads((reproduced / "reports/comparison.json").read_text())["settings"]["batch_size"]
    runs = _runs(reproduced)[:5]
    git(reproduced, "checkout", "--quiet", "--force", "HEAD")
    run_dvc(reproduced, "checkout", "--force")
    assert len(stages) == 5
    assert memory["train_stage_c"]["batch_size"] == compared <= 40
    assert memory["train_stage_b"]["batch_size"] == 32
    assert "confirmed by a real step" in output
    for run in runs:
        record = memory[run.info.run_name]
        assert run.data.metrics["memory/peak_bytes"] == record["peak_bytes"]
        assert run.data.metrics["memory/predicted_peak_bytes"] == record["predicted_peak_bytes"]
        assert run.data.params["memory.batch_size"] == str(record["batch_size"])


@pytest.mark.large
def test_after_ctrl_c_the_next_run_is_clean(reproduced: Path) -> None:
    metrics = (reproduced / "metrics/evaluate/multi_task.json").read_bytes()
    # The later one first: it needs what the earlier one makes.
    _interrupt(reproduced, "train_multi_task", sign="mlflow.db")
    _interrupt(reproduced, "prepare", sign="data/prepared/train.arrow")
    # Up to what is read here; a comparison with the new training times would come after it.
    run_dvc(reproduced, "repro", "evaluate@multi_task")
    assert (reproduced / "metrics/evaluate/multi_task.json").read_bytes() == metrics
    assert git(reproduced, "status", "--short", "metrics", "params.yaml", "data") == ""


def _interrupt(folder: Path, stage: str, sign: str) -> None:
    """Start a stage and press Ctrl-C in the midst of its work, soon after it has written to the file `sign`."""
    before = _written_ns(folder / sign)
    process = subprocess.Popen(
        ["dvc", "repro", "--force", "--single-item", stage],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    while _written_ns(folder / sign) in (None, before):
        assert process.poll() is None
        time.sleep(0.1)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) != 0


def _written_ns(path: Path) -> int | None:
    """When a file was last written to; `None` where DVC has just removed it."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None
