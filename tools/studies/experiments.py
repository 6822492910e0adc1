"""Running DVC experiments from code, and reading the metrics that they leave."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Metrics = Mapping[str, Mapping[str, Any]]

HEADLINES = ("type_top1", "type_top5", "airline_top1", "clarity_mae", "block_mae")  # what a study's table shows


def run_experiment(name: str, settings: Mapping[str, object], targets: Sequence[str] = ()) -> str:
    """Run the committed pipeline with changed parameters, in a copy of the repository; the workspace stays as it is.

    `targets` are the stages to stop at; none means the whole pipeline. An experiment of the same name is replaced.
    Returns the revision that holds the results. Raises `RuntimeError` where the pipeline fails.
    """
    started_from = git("rev-parse", "HEAD")
    # `dvc exp run --force` would replace one too, but run again what has not changed.
    subprocess.run(["dvc", "exp", "remove", name], check=False, capture_output=True)
    changes = [f"--set-param={key}={value}" for key, value in settings.items()]
    command = ["dvc", "exp", "run", "--temp", "--name", name, *changes, *targets]
    if subprocess.run(command, check=False).returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed; its output above says why")
    return find_experiment(name, started_from)


def find_experiment(name: str, started_from: str) -> str:
    """The revision of an experiment by its name and the commit that it started from, which may be no longer HEAD.

    Raises `RuntimeError` where there is none.
    """
    # By the name alone, `dvc exp show` may give another one: names are unique per commit only.
    return git("rev-parse", "--verify", f"refs/exps/{started_from[:2]}/{started_from[2:]}/{name}")


def find_experiments(pattern: str) -> dict[str, str]:
    """The revisions of all experiments whose names fit `pattern` (with `*`), whatever commit they started from."""
    refs = git("for-each-ref", "--format=%(refname:lstrip=4) %(objectname)", f"refs/exps/*/*/{pattern}")
    return dict(line.split() for line in refs.splitlines())


def read_metrics(files: Iterable[str], revision: str | None = None) -> dict[str, Any]:
    """The content of metrics files, of the workspace or of a revision. Raises `RuntimeError` for a missing one."""
    if revision is None:
        return {file: json.loads(Path(file).read_text(encoding="utf-8")) for file in files}
    return {file: json.loads(git("show", f"{revision}:{file}")) for file in files}


def git(*arguments: str) -> str:
    """What a git command prints. Raises `RuntimeError` where it fails."""
    done = subprocess.run(["git", *arguments], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"git {' '.join(arguments)} failed: {done.stderr.strip()}")
    return done.stdout.strip()
