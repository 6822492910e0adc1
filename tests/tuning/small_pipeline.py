"""`aerofuse tune` over a pipeline of two short stages with the real names, in repositories that tests make."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.imports import ROOT
from tests.pipeline import ENVIRONMENT, git, run_dvc

PIPELINE = """
stages:
  train_hybrid:
    foreach: {stage_c: {}}
    do:
      cmd: python stages/train.py
      params: [fusion_method, seed]
      deps: [stages/train.py]
      outs: [models/hybrid]
      metrics: [metrics/train/train_stage_c.json: {cache: false}]
  evaluate:
    matrix: {model: [hybrid]}
    cmd: python stages/evaluate.py
    deps: [stages/evaluate.py, models/hybrid]
    metrics: [metrics/evaluate/hybrid.json: {cache: false}]
"""
# It notes that it runs and where, and waits, fails and is slow where files of the test tell it to. What it finds
# depends on its parameters alone.
TRAIN = """
import json, os, pathlib, time
from ruamel.yaml import YAML

test = pathlib.Path(os.environ["TEST_FOLDER"])
params = YAML(typ="safe").load(pathlib.Path("params.yaml").read_text())
method, seed = params["fusion_method"], params["seed"]
with (test / "runs").open("a") as runs:
    runs.write(f"{method}-{seed} {os.getpid()} {os.environ['DVC_ROOT']}\\n")
while (test / f"hold-{method}-{seed}").exists():
    time.sleep(0.05)
if method == "add" and (test / "broken").exists():
    raise SystemExit("train: a planted fault")
score = {"concat": 0.8, "add": 0.5, "attention": 0.6}[method] + seed / 100
for epoch in (1, 2, 3):
    print(f"epoch {epoch}: train_loss 1.0000  score {score - 0.1 / epoch:.4f}  type_top1 0.5000", flush=True)
    if (test / "slow").exists():
        time.sleep(1)
for file, content in {
    "models/hybrid/model": {"method": method, "seed": seed},
    "metrics/train/train_stage_c.json": {"train_stage_c": {"score": score}},
}.items():
    pathlib.Path(file).parent.mkdir(parents=True, exist_ok=True)
    pathlib.Path(file).write_text(json.dumps(content))
with (test / "done").open("a") as done:
    done.write(f"{method}-{seed}\\n")
"""
EVALUATE = """
import json, pathlib
model = json.loads(pathlib.Path("models/hybrid/model").read_text())
pathlib.Path("metrics/evaluate").mkdir(parents=True, exist_ok=True)
metrics = {"type_top1": len(model["method"]) / 10 + model["seed"] / 1000}
pathlib.Path("metrics/evaluate/hybrid.json").write_text(json.dumps({"hybrid": metrics}))
"""


def make_repository(folder: Path) -> Path:
    """A repository with the pipeline, committed, whose parameters are the project's."""
    (folder / "stages").mkdir(parents=True)
    (folder / "dvc.yaml").write_text(PIPELINE, encoding="utf-8")
    (folder / "stages/train.py").write_text(TRAIN, encoding="utf-8")
    (folder / "stages/evaluate.py").write_text(EVALUATE, encoding="utf-8")
    for name in ("params.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, folder)
    (folder / ".gitignore").write_text("/reports\n/.resume/\n", encoding="utf-8")
    git(folder, "init", "--quiet")
    run_dvc(folder, "init", "--quiet")
    shutil.copy(ROOT / ".dvc/config", folder / ".dvc/config")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "a pipeline")
    return folder


@dataclass(frozen=True)
class Tuning:
    """`aerofuse tune` in a repository, whose stages look into `test_folder`."""

    repository: Path
    test_folder: Path

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the command in a session of its own, its output in one text."""
        program = "import sys; from aerofuse.cli.main import main; sys.exit(main())"
        return subprocess.Popen(
            [sys.executable, "-c", program, "tune", *arguments],
            cwd=self.repository,
            env=ENVIRONMENT | {"PYTHONPATH": str(ROOT / "src"), "TEST_FOLDER": str(self.test_folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run the command to its end; its exit status and output."""
        process = self.start(*arguments)
        output = process.communicate(timeout=300)[0]
        return process.returncode, output

    def report(self) -> dict[str, Any]:
        """The content of reports/tune.json."""
        content: dict[str, Any] = json.loads((self.repository / "reports/tune.json").read_text(encoding="utf-8"))
        return content

    def states(self) -> dict[str, str]:
        """The state of each trial of a grid over methods and seeds."""
        return {cell(outcome["values"]): outcome["state"] for outcome in self.report()["outcomes"]}

    def metrics(self) -> dict[str, Mapping[str, float]]:
        """What each trial of such a grid has found."""
        return {cell(outcome["values"]): outcome["metrics"] for outcome in self.report()["outcomes"]}

    def lines(self, name: str) -> list[list[str]]:
        """The words of each line that stages wrote to `runs` or `done`."""
        path = self.test_folder / name
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def cell(values: Mapping[str, object]) -> str:
    """The name that the stage has for its parameters."""
    return f"{values['fusion_method']}-{values['seed']}"


def wait_until(condition: Callable[[], object], timeout_s: float = 120) -> None:
    """Wait for something. Raises `AssertionError` where it does not come."""
    give_up = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up, "it does not come"
        time.sleep(0.05)


def worker_of(line: list[str]) -> int:
    """The process of the worker that ran a line of `runs`: its copy of the repository is named after it."""
    return int(Path(os.fspath(line[2])).name.rpartition("-")[2])
