"""What git and DVC say of the repository: its content now, its experiments, and where they may be pushed."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvc.repo import Repo

from aerofuse.common.params import load_section
from aerofuse.ingest.params import DataParams

INPUTS = ("dvc.yaml", "params.yaml", "src", "stages", "data/weights")  # of the pipeline, in git
HEADLINES = ("type_top1", "type_top5", "airline_top1", "clarity_mae", "block_mae")  # what a study's table shows


def git(*arguments: str, folder: Path | None = None) -> str:
    """Return what a git command prints. Raises `RuntimeError` where it fails."""
    done = subprocess.run(["git", *arguments], check=False, capture_output=True, text=True, cwd=folder)
    if done.returncode != 0:
        raise RuntimeError(f"git {' '.join(arguments)} failed: {done.stderr.strip()}")
    return done.stdout.strip()


@dataclass(frozen=True)
class RepositoryState:
    """What the working folder holds at one moment.

    `commit` is HEAD, and `tree` a commit that also has the edits of tracked files. `fingerprint` is eight letters that
    differ where the pipeline, its parameters, its code or its photos differ, committed or not.
    """

    commit: str
    tree: str
    fingerprint: str


def read_state() -> RepositoryState:
    """Return the state of the repository in the working folder. Raises `RuntimeError` where there is none."""
    commit = git("rev-parse", "HEAD")
    tree = git("stash", "create") or commit  # a commit that nothing refers to
    digest = hashlib.sha256(git("ls-tree", "-r", tree, *INPUTS).encode())
    for line in _photos():
        digest.update(line.encode())
    return RepositoryState(commit, tree, digest.hexdigest()[:8])


def _photos() -> Iterator[str]:
    """Yield the user's photos by name, size and time, as DVC tells whether a file may have changed."""
    for named in load_section(DataParams, "data").inputs.values():
        for path in [named, *sorted(named.rglob("*"))]:
            if path.is_file():
                found = path.stat()
                yield f"{path.as_posix()} {found.st_size} {found.st_mtime_ns}\n"


def find_experiment(name: str, started_from: str) -> str:
    """Return the revision of an experiment by its name and the commit that it started from, maybe not HEAD.

    Raises `RuntimeError` where there is none.
    """
    # By the name alone, `dvc exp show` may give another one: names are unique per commit only.
    return git("rev-parse", "--verify", experiment_reference(name, started_from))


def find_experiments(pattern: str) -> dict[str, str]:
    """Return the revisions of all experiments whose names fit `pattern` (with `*`), from any commit."""
    refs = git("for-each-ref", "--format=%(refname:lstrip=4) %(objectname)", f"refs/exps/*/*/{pattern}")
    return dict(line.split() for line in refs.splitlines())


def experiment_reference(name: str, started_from: str) -> str:
    """Return the git reference under which DVC keeps an experiment."""
    return f"refs/exps/{started_from[:2]}/{started_from[2:]}/{name}"


def read_metrics(files: Iterable[str], revision: str | None = None) -> dict[str, Any]:
    """Return what metrics files hold, in the workspace or in a revision. Raises `RuntimeError` where one is missing."""
    if revision is None:
        return {file: json.loads(Path(file).read_text(encoding="utf-8")) for file in files}
    return {file: json.loads(git("show", f"{revision}:{file}")) for file in files}


def find_remote() -> str | None:
    """Return the git remote to push experiments to; none without a DVC remote, which takes their outputs."""
    with Repo() as repo:
        if not repo.config["core"].get("remote"):
            return None
    remotes = git("remote").split()
    return "origin" if "origin" in remotes else next(iter(remotes), None)


def push_experiment(reference: str, remote: str) -> str | None:
    """Push an experiment and its outputs. Return the last line of what DVC says where that fails."""
    command = ["dvc", "--wait-for-lock", "exp", "push", remote, reference]
    done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode == 0:
        return None
    lines = (done.stderr or done.stdout).strip().splitlines()
    return lines[-1] if lines else f"exit status {done.returncode}"
