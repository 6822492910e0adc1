"""The real pipeline on a shrunken recipe, in a clone of the repository, through DVC."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import aerofuse
from aerofuse.models.files import load_model
from tests.imports import ROOT
from tests.pipeline import ENVIRONMENT, clone_on_a_shrunken_recipe, git, ran, run_dvc
from tests.s3_server import add_remote, s3_server
from tests.test_docs_commands import commands

pytestmark = [pytest.mark.slow, pytest.mark.large]

STAGES_OF_FUSION = {
    "check_params",
    "train_hybrid@stage_a",
    "train_hybrid@stage_b",
    "train_hybrid@stage_c",
    "evaluate@hybrid",
    "package",
    "export",
    "explain",
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


def test_the_pipeline_hands_out_a_model(reproduced: Path) -> None:
    predictor = aerofuse.load(reproduced / "models/aerofuse")
    assert predictor.predict(reproduced / "docs/photos/a380-800.jpg").type in predictor.record.classes.types
    metrics = json.loads((reproduced / "metrics/export.json").read_text())["export"]
    assert metrics["onnx_same_top1"] == metrics["torch_same_top1"] == 1.0
    assert metrics["onnx_max_difference"] <= 1e-4


def test_a_second_run_does_nothing(reproduced: Path) -> None:
    output = run_dvc(reproduced, "repro").stdout
    assert ran(output) == set()
    assert "up to date" in output
    assert git(reproduced, "status", "--short") == ""


def test_all_that_is_pushed_is_pulled_elsewhere_and_not_run_again(reproduced: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "aerofuse"
    git(reproduced, "clone", "--quiet", str(reproduced), str(elsewhere))
    with s3_server(tmp_path / "server") as server:
        add_remote(reproduced, server)
        run_dvc(reproduced, "push")
        add_remote(elsewhere, server)
        run_dvc(elsewhere, "pull")
    assert ran(run_dvc(elsewhere, "repro").stdout) == set()
    assert git(elsewhere, "status", "--short") == ""
    model, _ = load_model(elsewhere / "models/hybrid")
    assert sum(parameter.numel() for parameter in model.parameters()) > 1_000_000


def _runs(folder: Path) -> list[Any]:
    """The MLflow runs of stages, newest first."""
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    runs: list[Any] = mlflow.search_runs(experiment_names=["aerofuse"], output_format="list")
    return [run for run in runs if "mlflow.parentRunId" in run.data.tags]


def _training_runs(folder: Path) -> list[Any]:
    return [run for run in _runs(folder) if run.info.run_name.startswith("train_")]


def test_every_training_stage_is_an_mlflow_run_under_one_parent(reproduced: Path) -> None:
    stages = _training_runs(reproduced)
    assert {run.info.run_name for run in stages} == {
        f"train_{name}" for name in ("single_task", "multi_task", "stage_a", "stage_b", "stage_c")
    }
    assert len({run.data.tags["mlflow.parentRunId"] for run in stages}) == 1
    for run in stages:
        written = json.loads((reproduced / f"metrics/train/{run.info.run_name}.json").read_text())
        assert run.data.metrics["score"] == pytest.approx(written[run.info.run_name]["score"], abs=1e-6)


def test_the_results_are_an_mlflow_run_with_the_report_and_its_figures(reproduced: Path) -> None:
    (run,) = [run for run in _runs(reproduced) if run.info.run_name == "compare"]
    hybrid = json.loads((reproduced / "metrics/evaluate/hybrid.json").read_text())["hybrid"]
    assert run.data.metrics["hybrid/type_top1"] == pytest.approx(hybrid["type_top1"], abs=1e-6)
    kept = Path(run.info.artifact_uri.removeprefix("file://"))
    assert (kept / "index.html").read_bytes() == (reproduced / "reports/index.html").read_bytes()
    drawn = {file.name for file in (reproduced / "reports/charts").iterdir()}
    assert {"curve-score.png", "memory.png"} <= drawn == {file.name for file in (kept / "charts").iterdir()}


def test_another_fusion_method_runs_the_hybrid_again_and_nothing_else(reproduced: Path) -> None:
    output = run_dvc(reproduced, "exp", "run", "--name", "another-method", "-S", "fusion_method=attention").stdout
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


def test_batch_and_budget_on_auto(reproduced: Path) -> None:
    settings = (
        "training.gradient_checkpointing.policy=budget",
        "training.gradient_checkpointing.budget=auto",
        "training.memory_reserve=0.0",
        "training.largest_batch_size=40",
        "recipes.quick.train_stage_c.batch_size=auto",
    )
    output = run_dvc(reproduced, "exp", "run", "--name", "auto", *(f"-S={setting}" for setting in settings)).stdout
    stages = [path.stem for path in (reproduced / "reports/times").glob("train_*.json")]
    memory = {stage: json.loads((reproduced / f"reports/times/{stage}.json").read_text())["memory"] for stage in stages}
    compared = json.loads((reproduced / "reports/comparison.json").read_text())["settings"]["batch_size"]
    runs = _training_runs(reproduced)[:5]
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


def test_after_ctrl_c_the_next_run_is_clean(reproduced: Path) -> None:
    metrics = (reproduced / "metrics/evaluate/multi_task.json").read_bytes()
    # The later one first: it needs what the earlier one makes.
    _interrupt(reproduced, "train_baseline@multi_task", sign="mlflow.db")
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


def test_the_commands_of_the_page_about_experiments_in_their_order(reproduced: Path) -> None:
    for command in commands(ROOT / "docs/experiments.md"):
        program, *arguments = shlex.split(command)
        assert program == "dvc"
        if arguments[:2] == ["exp", "run"] and "--name" not in arguments:
            arguments.append("check_params")  # the first is run whole
        if "--queue" not in arguments and arguments[:2] == ["exp", "run"]:
            _go_back(reproduced)
        if "NAME" in arguments:
            arguments[arguments.index("NAME")] = _finished(reproduced)
        assert run_dvc(reproduced, *arguments).stdout, command
        if arguments[:2] == ["exp", "apply"]:
            assert "fusion_method: attention" in (reproduced / "params.yaml").read_text(encoding="utf-8")
    assert git(reproduced, "branch", "--list", "try-attention").strip() == "try-attention"
    _go_back(reproduced)


def _go_back(folder: Path) -> None:
    """The command that the page gives for it."""
    subprocess.run(["bash", "-c", "git reset --quiet --hard && dvc checkout"], cwd=folder, env=ENVIRONMENT, check=True)
    assert git(folder, "status", "--short") == ""


def _finished(folder: Path) -> str:
    """The name of an experiment of the queue, when all of them are done."""
    for _ in range(240):
        rows = [line.split() for line in run_dvc(folder, "queue", "status").stdout.splitlines()]
        states = {row[0]: row[-1] for row in rows if row and row[-1] in ("Queued", "Running", "Success", "Failed")}
        assert "Failed" not in states.values(), rows
        if states and set(states.values()) == {"Success"}:
            return next(iter(states))
        time.sleep(1)
    raise AssertionError("the queue does not come to an end")


def test_a_sweep_has_a_row_for_each_fusion_method(reproduced: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.studies.sweep", "--fusion-method", "concat", "add", "--seeds", "0"],
        cwd=reproduced,
        env=ENVIRONMENT | {"PYTHONPATH": str(reproduced / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (reproduced / "reports/sweep.md").read_text(encoding="utf-8") == done.stdout
    report = json.loads((reproduced / "reports/sweep.json").read_text(encoding="utf-8"))
    assert {summary["fusion_method"] for summary in report["fusion_methods"]} == {"concat", "add"}
    # This cell is what `dvc repro` has made already.
    hybrid = json.loads((reproduced / "metrics/evaluate/hybrid.json").read_text(encoding="utf-8"))["hybrid"]
    own = next(each for each in report["experiments"] if each["cell"]["fusion_method"] == "concat")
    assert own["metrics"]["type_top1"] == pytest.approx(hybrid["type_top1"], rel=1e-5)
