"""Running the real pipeline on a shrunken recipe, in a clone of the repository, through DVC."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from ruamel.yaml import YAML

from tests.imports import ROOT
from tests.warm_python import warm_python
from tools.studies.chaos import shrink

ENVIRONMENT = os.environ | {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "OMP_NUM_THREADS": "1",
    "GIT_AUTHOR_NAME": "Test",
    "GIT_AUTHOR_EMAIL": "test@example.invalid",
    "GIT_COMMITTER_NAME": "Test",
    "GIT_COMMITTER_EMAIL": "test@example.invalid",
}


def clone_on_a_shrunken_recipe(
    folder: Path, data: Mapping[str, Any] | None = None, epochs: int = 1, changes: Mapping[str, object] | None = None
) -> Path:
    """A clone of the repository as it is in the working tree, committed; `data` changes that section of params.yaml.

    Every stage trains for so many `epochs`, and saves its state every other update. `changes` are of any values of
    params.yaml, by their names with dots.
    """
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / "dvc.lock").unlink(missing_ok=True)
    _shrink(folder / "params.yaml", data or {}, epochs)
    shrink(folder, changes or {})
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "a shrunken recipe")
    return folder


def _shrink(params_file: Path, data: Mapping[str, Any], epochs: int) -> None:
    """Make the committed recipes small enough for a test: fewer photos, one epoch a stage, fewer resamples."""
    yaml = YAML()
    params = yaml.load(params_file.read_text(encoding="utf-8"))
    params["data"] |= data
    params["data"]["synthetic"] |= {"num_images": 200, "num_airframes": 60}
    params["compare"]["bootstrap_samples"] = 200
    params["training"]["save_state_every"] = 2
    for recipe in params["recipes"].values():
        for name, section in recipe.items():
            if name.startswith("train_"):
                section["epochs"] = epochs
        recipe["evaluate"]["latency_runs"] = 2
    with params_file.open("w", encoding="utf-8") as file:
        yaml.dump(params, file)


@dataclass(frozen=True)
class FinishedRun:
    """A clone after `dvc repro`, its results committed, and the seconds that it took. Tests share it."""

    folder: Path
    seconds: float

    def copy(self, folder: Path) -> Path:
        """A clone of one's own, with DVC's cache, but without the runs of MLflow, which name their folder."""
        ignored = shutil.ignore_patterns("mlflow.db*", "mlartifacts")
        return Path(shutil.copytree(self.folder, folder, symlinks=True, ignore=ignored))


def finished_run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """The pipeline on the shrunken recipe with two epochs a stage, run once for all processes of a test run."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder, seconds = shared / "finished/aerofuse", shared / "finished/seconds"
    with FileLock(shared / "finished.lock"):
        if not seconds.exists():
            clone_on_a_shrunken_recipe(folder, epochs=2)
            environment = warm_environment()
            started = time.monotonic()
            run_dvc(folder, "repro", environment=environment)
            took = time.monotonic() - started
            git(folder, "add", "--all")
            git(folder, "commit", "--quiet", "--message", "results")
            seconds.write_text(str(took))
    return FinishedRun(folder, float(seconds.read_text()))


def git(folder: Path, *arguments: str) -> str:
    """What a git command prints. Raises `CalledProcessError`."""
    done = subprocess.run(["git", *arguments], cwd=folder, env=ENVIRONMENT, check=True, capture_output=True, text=True)
    return done.stdout


def warm_environment() -> dict[str, str]:
    """`ENVIRONMENT` with a `python` that starts at once, for it has imported torch and the like."""
    return ENVIRONMENT | {"PATH": f"{warm_python()}{os.pathsep}{ENVIRONMENT['PATH']}"}


def run_dvc_warm(folder: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """`run_dvc` with a `python` that starts at once, for the stages."""
    return run_dvc(folder, *arguments, check=check, environment=warm_environment())


def run_dvc(
    folder: Path, *arguments: str, check: bool = True, environment: Mapping[str, str] = ENVIRONMENT
) -> subprocess.CompletedProcess[str]:
    """A DVC command, what it prints and warns of in one text."""
    done = subprocess.run(
        ["dvc", *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert not check or done.returncode == 0, done.stdout
    return done


def ran(output: str) -> set[str]:
    """The stages that DVC says it has run."""
    return {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage '")}


def _mlflow(folder: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")


def tracked_runs(folder: Path) -> list[Any]:
    """The MLflow runs of stages, newest first."""
    client = _mlflow(folder)
    experiment = client.get_experiment_by_name("aerofuse")
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])
    return [run for run in runs if "mlflow.parentRunId" in run.data.tags]


def tracked_trainings(folder: Path) -> list[Any]:
    """Those of training stages."""
    return [run for run in tracked_runs(folder) if run.info.run_name.startswith("train_")]


def scores_by_epoch(folder: Path, run: Any) -> dict[int, float]:
    """What a training's run has as its validation score."""
    return {point.step: point.value for point in _mlflow(folder).get_metric_history(run.info.run_id, "score")}
