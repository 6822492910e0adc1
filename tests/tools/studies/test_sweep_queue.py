"""A sweep through DVC's real queue, over a pipeline of one stage: interrupted, going on, failing, done."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.imports import ROOT
from tests.pipeline import ENVIRONMENT, git, run_dvc

pytestmark = pytest.mark.slow

PIPELINE = """
stages:
  evaluate:
    matrix: {model: [hybrid]}
    cmd: python stages/evaluate.py
    params: [fusion_method, seed]
    deps: [stages/evaluate.py]
    outs: [models]
    metrics:
      - metrics/train/train_stage_c.json: {cache: false}
      - metrics/evaluate/hybrid.json: {cache: false}
"""
# It notes that it runs, waits where it is told to, and fails for one method until that is mended.
STAGE = """
import json, os, pathlib, time
from ruamel.yaml import YAML

root = pathlib.Path(os.environ["DVC_ROOT"])
params = YAML(typ="safe").load(pathlib.Path("params.yaml").read_text())
method, seed = params["fusion_method"], params["seed"]
with (root / "runs").open("a") as runs:
    runs.write(f"{method} {seed}\\n")
while (root / "wait").exists():
    time.sleep(0.1)
if method == "add" and not (root / "mended").exists():
    raise SystemExit("evaluate: a planted fault")
for file, content in {
    "models/model": {},
    "metrics/train/train_stage_c.json": {"train_stage_c": {"score": 0.5 + seed / 10}},
    "metrics/evaluate/hybrid.json": {"hybrid": {"type_top1": 0.25 + seed / 10}},
}.items():
    pathlib.Path(file).parent.mkdir(parents=True, exist_ok=True)
    pathlib.Path(file).write_text(json.dumps(content))
"""
GRID = ("--fusion-method", "add", "concat", "--seeds", "0")


@dataclass(frozen=True)
class Run:
    """One call of the command, the report that stood there after it, and the cells that were run until then."""

    status: int
    output: str
    report: dict[str, Any]
    runs: list[str]

    def statuses(self) -> dict[str, str]:
        """The status of each method's experiment."""
        return {each["cell"]["fusion_method"]: each["status"] for each in self.report["experiments"]}


def _start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tools.studies.sweep", *arguments],
        cwd=folder,
        env=ENVIRONMENT | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _end(folder: Path, process: subprocess.Popen[str], output: str = "") -> Run:
    try:
        rest, _ = process.communicate(timeout=180)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    report, runs = folder / "reports/sweep.json", folder / "runs"
    return Run(
        process.returncode,
        output + rest,
        json.loads(report.read_text(encoding="utf-8")) if report.exists() else {},
        runs.read_text(encoding="utf-8").split("\n")[:-1] if runs.exists() else [],
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("sweep") / "repository"
    (folder / "stages").mkdir(parents=True)
    (folder / "dvc.yaml").write_text(PIPELINE, encoding="utf-8")
    (folder / "stages/evaluate.py").write_text(STAGE, encoding="utf-8")
    shutil.copy(ROOT / "params.yaml", folder)
    (folder / ".gitignore").write_text("/runs\n/wait\n/mended\n/reports\n", encoding="utf-8")
    git(folder, "init", "--quiet")
    run_dvc(folder, "init", "--quiet")
    shutil.copy(ROOT / ".dvc/config", folder / ".dvc/config")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "a pipeline")
    # What is not committed belongs to the experiments, too.
    with (folder / "stages/evaluate.py").open("a", encoding="utf-8") as stage:
        stage.write("# edited\n")
    yield folder
    # Where a test has failed, a worker may still be there.
    (folder / "wait").unlink(missing_ok=True)
    run_dvc(folder, "queue", "stop", "--kill", check=False)


@pytest.fixture(scope="module")
def interrupted(folder: Path) -> Run:
    """Ctrl-C while the first experiment runs."""
    (folder / "wait").touch()
    process = _start(folder, *GRID)
    assert process.stdout is not None
    output = ""
    while not output.endswith(": running\n"):
        output += process.stdout.readline()
        assert process.poll() is None, output
    deadline = time.monotonic() + 180
    while not (folder / "runs").exists():
        assert time.monotonic() < deadline, output
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    return _end(folder, process, output)


@pytest.fixture(scope="module")
def failed(interrupted: Run, folder: Path) -> Run:
    """The same command, while what was started before still runs."""
    process = _start(folder, *GRID)
    assert process.stdout is not None
    output = process.stdout.readline()
    assert output.endswith("add-seed0: running\n")
    (folder / "wait").unlink()
    return _end(folder, process, output)


@pytest.fixture(scope="module")
def mended(failed: Run, folder: Path) -> Run:
    (folder / "mended").touch()
    return _end(folder, _start(folder, *GRID))


def test_ctrl_c_ends_the_command_and_says_what_goes_on(interrupted: Run) -> None:
    assert interrupted.status == 130
    assert "the same command waits for them again" in interrupted.output
    assert "Traceback" not in interrupted.output
    assert interrupted.report == {}
    assert interrupted.runs == ["add 0"]


def test_a_failure_is_the_exit_status_and_stops_no_other_experiment(failed: Run) -> None:
    assert failed.status == 1
    assert failed.statuses() == {"add": "Failed", "concat": "Success"}
    assert failed.runs == ["add 0", "concat 0"], "the command after Ctrl-C runs none twice"


def test_the_table_and_what_to_do_are_printed_and_written(failed: Run, folder: Path) -> None:
    page = (folder / "reports/sweep.md").read_text(encoding="utf-8")
    assert page in failed.output
    assert "1 of 2 experiments are done" in page
    row = (
        "| concat          |   1 |             0.5000 |      25.00 % "
        "|            - |               - |             - |           - |"
    )
    assert row in page.splitlines()
    assert "evaluate: a planted fault" in page
    name = next(e["cell"]["name"] for e in failed.report["experiments"] if e["status"] == "Failed")
    assert f"`dvc queue logs {name}` shows all" in page
    assert "evaluate: a planted fault" in run_dvc(folder, "queue", "logs", name).stdout


def test_what_failed_is_run_again_and_what_is_done_is_not(failed: Run, mended: Run) -> None:
    assert mended.status == 0
    assert mended.statuses() == {"add": "Success", "concat": "Success"}
    assert mended.runs[len(failed.runs) :] == ["add 0"]


def test_a_commit_of_something_else_runs_nothing_again_and_an_edit_does(mended: Run, folder: Path) -> None:
    (folder / "README.md").write_text("words\n", encoding="utf-8")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "words, and the edited stage")
    again = _end(folder, _start(folder, *GRID))
    assert (again.status, again.runs, again.report) == (0, mended.runs, mended.report)
    with (folder / "stages/evaluate.py").open("a", encoding="utf-8") as stage:
        stage.write("# edited again\n")
    edited = _end(folder, _start(folder, "--fusion-method", "concat", "--seeds", "0"))
    assert edited.status == 0
    assert edited.runs[len(mended.runs) :] == ["concat 0"]
