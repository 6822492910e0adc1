"""DVC experiments from code: to run one, and to copy its results."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dvc.api import DVCFileSystem

from aerofuse.tuning.repository import find_experiment, git

Metrics = Mapping[str, Mapping[str, Any]]


def run_experiment(name: str, settings: Mapping[str, object], targets: Sequence[str] = ()) -> str:
    """Run the committed pipeline with changed parameters, in a copy of the repository; the workspace stays as it is.

    `targets` are the stages to stop at; none means the whole pipeline. An experiment of the same name is replaced.
    Returns the revision that holds the results. Raises `RuntimeError` where the pipeline fails, or where params.yaml is
    not as committed: DVC puts the changes of an experiment there for a moment, and one that is killed leaves them.
    """
    started_from = git("rev-parse", "HEAD")
    if git("status", "--porcelain", "params.yaml"):
        raise RuntimeError("params.yaml is not as committed, and would change the experiment; commit or restore it")
    # `dvc exp run --force` would replace one too, but run again what has not changed.
    subprocess.run(["dvc", "exp", "remove", name], check=False, capture_output=True)
    changes = [f"--set-param={key}={value}" for key, value in settings.items()]
    command = ["dvc", "exp", "run", "--temp", "--name", name, *changes, *targets]
    if subprocess.run(command, check=False).returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed; its output above says why")
    return find_experiment(name, started_from)


def copy_results(revision: str, files: Iterable[str], folder: Path) -> None:
    """Copy files of an experiment into `folder`, those that git tracks and those that DVC keeps.

    Raises `FileNotFoundError` where it has no such file.
    """
    results = DVCFileSystem(rev=revision)
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        results.get_file(file, str(folder / file))
