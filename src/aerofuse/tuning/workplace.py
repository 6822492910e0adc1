"""Where a worker runs experiments: a copy of the repository of its own, which borrows what need not be copied.

So the user may go on editing, workers do not meet in DVC's stash, and one that is killed leaves the working folder and
its params.yaml as they were. Experiments come back to the repository when they are done.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dvc.config import Config
from dvc.repo import Repo
from filelock import FileLock, Timeout

from aerofuse.tracking.addresses import tracking_uri
from aerofuse.tuning.repository import RepositoryState, experiment_reference, find_experiment, git

FOLDER = Path(".resume/tune")
_LOG_LINES = 10


class ExperimentFailedError(RuntimeError):
    """DVC has not run an experiment to its end; `lines` are the last that it printed."""

    def __init__(self, name: str, lines: list[str]) -> None:
        super().__init__(f"{name} failed")
        self.lines = lines


@dataclass(frozen=True)
class Workplace:
    """The copy in `folder` of the repository in `root`, as `state` says that it was."""

    root: Path
    folder: Path
    state: RepositoryState

    def run(self, name: str, settings: Mapping[str, str], target: str, on_line: Callable[[str], None]) -> str:
        """Run an experiment up to the stage `target`, and return the revision that holds its results.

        `on_line` gets each line that it prints; an exception of it ends the experiment. All lines are in a log.
        Raises `ExperimentFailedError`.
        """
        changes = [f"--set-param={key}={value}" for key, value in settings.items()]
        command = ["dvc", "exp", "run", "--temp", "--name", name, *changes, target]
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "aerofuse.tuning.supervised", *command],
            cwd=self.folder,
            env=os.environ | {"MLFLOW_TRACKING_URI": tracking_uri(self.root)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C is for the worker, which ends the experiment
        )
        assert process.stdout is not None
        last: deque[str] = deque(maxlen=_LOG_LINES)
        logs = self.root / FOLDER / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        with (logs / f"{name}.log").open("w", encoding="utf-8") as log:
            try:
                for line in process.stdout:
                    log.write(line)
                    if line.strip():
                        last.append(line.rstrip())
                    on_line(line)
            finally:
                log.write(process.communicate()[0])  # ends it where it still runs
        if process.returncode != 0:
            raise ExperimentFailedError(name, list(last))
        return self._fetch(name)

    def _fetch(self, name: str) -> str:
        reference = experiment_reference(name, self.state.commit)
        # Another worker may have run the same.
        fetch = ["-c", "gc.auto=0", "fetch", "--quiet", "--no-write-fetch-head", str(self.folder)]
        git(*fetch, f"+{reference}:{reference}", folder=self.root)
        return find_experiment(name, self.state.commit)


@contextmanager
def workplace(root: Path, state: RepositoryState) -> Iterator[Workplace]:
    """Make a copy of the repository, which is removed in the end, and those that killed workers have left."""
    workers = root / FOLDER / "workers"
    workers.mkdir(parents=True, exist_ok=True)
    for lock in workers.glob("*.lock"):
        with suppress(Timeout), FileLock(lock, timeout=0):
            _remove(workers / lock.stem, lock)
    folder = workers / f"{socket.gethostname()}-{os.getpid()}"
    lock = workers / f"{folder.name}.lock"
    with FileLock(lock):
        try:
            _copy(root, folder, state)
            yield Workplace(root, folder, state)
        finally:
            _remove(folder, lock)


def _remove(folder: Path, lock: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    lock.unlink(missing_ok=True)


def _copy(root: Path, folder: Path, state: RepositoryState) -> None:
    """Copy what git tracks, edits included; git's objects, DVC's cache and states of trainings are the repository's."""
    git("clone", "--quiet", "--shared", "--no-checkout", str(root), str(folder))
    git("update-ref", "--no-deref", "HEAD", state.commit, folder=folder)
    git("read-tree", "-u", "--reset", state.tree, folder=folder)
    for key in ("user.name", "user.email"):
        if value := git("config", "--get", "--default", "", key, folder=root):
            git("config", key, value, folder=folder)
    (folder / ".resume").symlink_to(root / ".resume")
    with suppress(FileNotFoundError):
        shutil.copy(root / ".dvc/config.local", folder / ".dvc/config.local")
    with Repo(str(root)) as repo, Config(str(folder / ".dvc")).edit("local") as config:
        config.setdefault("cache", {})["dir"] = repo.cache.local_cache_dir
