"""A training stage that is killed goes on with the same command, in every way that DVC runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from glob import glob
from pathlib import Path

import pytest

from tests.pipeline import clone_on_a_shrunken_recipe, git, run_dvc, run_dvc_warm, warm_environment

pytestmark = pytest.mark.slow

STAGE = "train_multi_task"
TARGET = "train_baseline@multi_task"  # as dvc.yaml calls it
TIMES = f"reports/times/{STAGE}.json"


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = clone_on_a_shrunken_recipe(tmp_path_factory.mktemp("clone") / "aerofuse", epochs=3)
    run_dvc(folder, "repro", "weights", "prepare")
    # Killed while it makes its database, MLflow takes nothing more, and each training waits for it in vain.
    make_store = "from mlflow import MlflowClient; MlflowClient('sqlite:///mlflow.db').search_experiments()"
    subprocess.run(["python", "-c", make_store], cwd=folder, env=warm_environment(), check=True)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "prepared")
    return folder


def _states(clone: Path) -> set[str]:
    """What is kept of the stage's trainings; unlike `Path.glob`, it lets a folder go while it looks."""
    return set(glob(f".resume/{STAGE}/*/state-*.pt", root_dir=clone))  # noqa: PTH207


def _kill_after_an_update(clone: Path, command: list[str]) -> None:
    """Start `command`, and kill the process that trains, it alone, as soon as it has kept a state."""
    found = _states(clone)
    process = subprocess.Popen(
        command, cwd=clone, env=warm_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    deadline = time.monotonic() + 200
    while not (new := _states(clone) - found):
        assert process.poll() is None, process.communicate()[0].decode()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    owner = (clone / new.pop()).with_name("owner").read_text()
    os.kill(int(owner.split()[-1]), signal.SIGKILL)
    process.communicate(timeout=120)


def _resumed(clone: Path, committed: str | None = None) -> int:
    text = (clone / TIMES).read_text() if committed is None else git(clone, "show", f"{committed}:{TIMES}")
    return int(json.loads(text)["resumed"])


def test_repro_goes_on(clone: Path) -> None:
    command = ["dvc", "repro", TARGET]
    _kill_after_an_update(clone, command)
    run_dvc_warm(clone, *command[1:])
    assert _resumed(clone) == 1
    git(clone, "add", "--all")
    git(clone, "commit", "--quiet", "--message", "trained")


@pytest.mark.parametrize(
    ("seed", "mode"), [(11, []), (12, ["--temp"]), (13, ["--queue"])], ids=["run", "temp", "queue"]
)
def test_an_experiment_goes_on(clone: Path, seed: int, mode: list[str]) -> None:
    before = set(_experiments(clone))
    command = ["exp", "run", *mode, "-S", f"seed={seed}", TARGET]
    for kill in (True, False):
        if mode == ["--queue"]:
            run_dvc_warm(clone, *command)
        here = ["exp", "run", "--run-all"] if mode == ["--queue"] else command
        if kill:
            _kill_after_an_update(clone, ["dvc", *here])
        else:
            run_dvc_warm(clone, *here)
    (experiment,) = set(_experiments(clone)) - before
    assert _resumed(clone, experiment) == 1


def _experiments(clone: Path) -> list[str]:
    references = git(clone, "for-each-ref", "--format=%(refname)", "refs/exps").split()
    return [name for name in references if len(name.split("/")) == 5]  # refs/exps/<2>/<38 digits>/<name>
