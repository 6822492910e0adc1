"""Experiments on the real pipeline, bad values, Ctrl-C and a grid, after a run that is finished."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest

from tests.imports import ROOT
from tests.pipeline import ENVIRONMENT, FinishedRun, git, ran, run_dvc, run_dvc_warm, warm_environment
from tests.test_docs_commands import commands

pytestmark = pytest.mark.slow

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
def reproduced(finished: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished.copy(tmp_path_factory.mktemp("copy") / "aerofuse")


@dataclass(frozen=True)
class Experiment:
    """What DVC printed, and what lay in the working folder afterwards."""

    output: str
    record: dict[str, Any]
    difference: dict[str, Any]  # of the metrics


@pytest.fixture(scope="module")
def attention(reproduced: Path) -> Experiment:
    """The first command of docs/experiments.md."""
    command = next(commands(ROOT / "docs/experiments.md"))
    assert command == "dvc exp run --name attention -S fusion_method=attention"
    output = run_dvc_warm(reproduced, *shlex.split(command)[1:]).stdout
    record = json.loads((reproduced / "models/hybrid/model.json").read_text())
    difference = json.loads(run_dvc_warm(reproduced, "metrics", "diff", "--json").stdout)
    _go_back(reproduced)
    return Experiment(output, record, difference)


def test_another_fusion_method_runs_the_hybrid_again_and_nothing_else(attention: Experiment) -> None:
    assert ran(attention.output) == STAGES_OF_FUSION
    assert attention.record["architecture"]["fusion_method"] == "attention"
    error = attention.difference["metrics/evaluate/hybrid.json"]["hybrid.clarity_rmse"]
    assert error["new"] != error["old"]
    assert "metrics/evaluate/multi_task.json" not in attention.difference


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
                "fusion_method: 'bogus' is not allowed: Input should be 'concat', 'add', ",
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
    done = run_dvc_warm(reproduced, "exp", "run", *(f"-S={setting}" for setting in settings), check=False)
    assert done.returncode != 0
    for message in messages:
        assert message in done.stdout
    assert {path: path.stat().st_mtime_ns for path in (reproduced / "models").rglob("*.safetensors")} == before
    git(reproduced, "checkout", "--quiet", "--force", "HEAD")
    assert git(reproduced, "status", "--short") == ""
    # Mended, nothing is run again.
    assert ran(run_dvc_warm(reproduced, "repro").stdout) <= {"check_params"}
    assert git(reproduced, "status", "--short") == ""


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
        time.sleep(0.01)
    time.sleep(0.05)  # a shrunken training takes a second
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) != 0


def _written_ns(path: Path) -> int | None:
    """When a file was last written to; `None` where DVC has just removed it."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def test_the_commands_of_the_page_about_experiments_in_their_order(reproduced: Path, attention: Experiment) -> None:
    assert attention.output  # of the first one
    for command in list(commands(ROOT / "docs/experiments.md"))[1:]:
        program, *arguments = shlex.split(command)
        assert program == "dvc"
        if arguments[:2] == ["exp", "run"] and "--name" not in arguments:
            arguments.append("check_params")  # the first was run whole
        if "--queue" not in arguments and arguments[:2] == ["exp", "run"]:
            _go_back(reproduced)
        if "NAME" in arguments:
            arguments[arguments.index("NAME")] = _finished(reproduced)
        assert run_dvc_warm(reproduced, *arguments).stdout, command
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
        rows = [line.split() for line in run_dvc_warm(folder, "queue", "status").stdout.splitlines()]
        states = {row[0]: row[-1] for row in rows if row and row[-1] in ("Queued", "Running", "Success", "Failed")}
        assert "Failed" not in states.values(), rows
        if states and set(states.values()) == {"Success"}:
            return next(iter(states))
        time.sleep(1)
    raise AssertionError("the queue does not come to an end")


def test_a_grid_has_a_row_for_each_fusion_method(reproduced: Path) -> None:
    program = "import sys; from aerofuse.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        ["python", "-c", program, "tune", "fusion_method=concat,add", "seed=0"],
        cwd=reproduced,
        env=warm_environment() | {"PYTHONPATH": str(reproduced / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (reproduced / "reports/tune.md").read_text(encoding="utf-8") == done.stdout
    outcomes = json.loads((reproduced / "reports/tune.json").read_text(encoding="utf-8"))["outcomes"]
    found = {outcome["values"]["fusion_method"]: outcome["metrics"] for outcome in outcomes}
    assert set(found) == {"concat", "add"}
    # This row is what `dvc repro` has made already.
    hybrid = json.loads((reproduced / "metrics/evaluate/hybrid.json").read_text(encoding="utf-8"))["hybrid"]
    assert found["concat"]["type_top1"] == pytest.approx(hybrid["type_top1"], rel=1e-5)
    # The epochs of a real training are read from what it prints: two in each of the three phases.
    storage = f"sqlite:///{reproduced / '.resume/tune/studies.db'}"
    (study,) = (optuna.load_study(study_name=name, storage=storage) for name in optuna.get_all_study_names(storage))
    (trained,) = (trial for trial in study.trials if trial.params["fusion_method"] == "add")
    assert list(trained.intermediate_values) == [1, 2, 1001, 1002, 2001, 2002]
    assert max(trained.intermediate_values.values()) >= found["add"]["score"] - 1e-4
