"""DVC experiments from code: to run one, to queue several and wait for them, and to read their metrics."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvc.api import DVCFileSystem
from dvc.repo import Repo

Metrics = Mapping[str, Mapping[str, Any]]

HEADLINES = ("type_top1", "type_top5", "airline_top1", "clarity_mae", "block_mae")  # what a study's table shows

QUEUED, RUNNING, SUCCESS, FAILED = "Queued", "Running", "Success", "Failed"  # DVC's own words
MISSING = "Missing"  # the queue does not have it

_LOOKS = 3  # at a queue whose files its workers just move
_RESTART_POLLS, _GIVE_UP_POLLS = 3, 12  # in a row without a worker; a busy machine's may be late with one answer

logger = logging.getLogger(__name__)


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


def find_experiment(name: str, started_from: str) -> str:
    """Return the revision of an experiment by its name and the commit that it started from, maybe not HEAD.

    Raises `RuntimeError` where there is none.
    """
    # By the name alone, `dvc exp show` may give another one: names are unique per commit only.
    return git("rev-parse", "--verify", f"refs/exps/{started_from[:2]}/{started_from[2:]}/{name}")


def find_experiments(pattern: str) -> dict[str, str]:
    """Return the revisions of all experiments whose names fit `pattern` (with `*`), from any commit."""
    refs = git("for-each-ref", "--format=%(refname:lstrip=4) %(objectname)", f"refs/exps/*/*/{pattern}")
    return dict(line.split() for line in refs.splitlines())


def read_metrics(files: Iterable[str], revision: str | None = None) -> dict[str, Any]:
    """Return what metrics files hold, in the workspace or in a revision. Raises `RuntimeError` where one is missing."""
    if revision is None:
        return {file: json.loads(Path(file).read_text(encoding="utf-8")) for file in files}
    return {file: json.loads(git("show", f"{revision}:{file}")) for file in files}


def copy_results(revision: str, files: Iterable[str], folder: Path) -> None:
    """Copy files of an experiment into `folder`, those that git tracks and those that DVC keeps.

    Raises `FileNotFoundError` where it has no such file.
    """
    results = DVCFileSystem(rev=revision)
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        results.get_file(file, str(folder / file))


def git(*arguments: str) -> str:
    """Return what a git command prints. Raises `RuntimeError` where it fails."""
    done = subprocess.run(["git", *arguments], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"git {' '.join(arguments)} failed: {done.stderr.strip()}")
    return done.stdout.strip()


@dataclass(frozen=True)
class Queue:
    """How experiments stand in DVC's queue, by name, and whether a worker is there to run them."""

    statuses: Mapping[str, str]
    has_workers: bool


def read_queue(names: Iterable[str]) -> Queue:
    """Return how the experiments `names` stand now; one that has results is a `SUCCESS`, wherever they come from.

    Raises `RuntimeError` where DVC does not say.
    """
    for look in range(1, _LOOKS + 1):
        try:
            with Repo() as repo:
                queue = repo.experiments.celery_queue
                queued = {task["name"]: task["status"] for task in queue.status()}
                has_workers = bool(queue.worker_status())
            break
        except Exception as error:  # DVC's, celery's, and those of files that a worker just moves
            if look == _LOOKS:
                raise RuntimeError(f"DVC does not say how its queue stands: {error}") from error
            time.sleep(1)
    done = find_experiments("*")  # after the queue: DVC keeps the results before it calls an experiment a success
    return Queue({name: SUCCESS if name in done else queued.get(name, MISSING) for name in names}, has_workers)


def put(name: str, settings: Mapping[str, object], targets: Sequence[str]) -> None:
    """Queue the pipeline as it lies in the workspace, with changed parameters, up to the stages `targets`."""
    changes = [f"--set-param={key}={value}" for key, value in settings.items()]
    _dvc("exp", "run", "--queue", "--name", name, *changes, *targets)


def forget(name: str) -> None:
    """Take an experiment that has ended out of the queue."""
    _dvc("queue", "remove", name)


def read_log(name: str) -> list[str]:
    """Return the lines that an experiment has printed; where it never started, what DVC says of that."""
    done = subprocess.run(["dvc", "queue", "logs", name], check=False, capture_output=True, text=True)
    # A progress bar rewrites its line.
    return [line.rstrip() for line in re.split(r"[\r\n]+", done.stdout or done.stderr) if line.strip()]


def run_queued(names: Sequence[str], jobs: int, poll_s: float = 5.0) -> Mapping[str, str]:
    """Have `jobs` workers run what is queued until the experiments `names` have ended; the status of each.

    Gives up, with some experiments not ended, where no worker stays.
    """
    told: Mapping[str, str] = {}
    without_workers = 0  # polls in a row
    while True:
        queue = read_queue(names)
        for name, status in queue.statuses.items():
            if status != told.get(name):
                logger.info("%s: %s", name, status.lower())
        ended = all(status in (SUCCESS, FAILED) for status in queue.statuses.values())
        if ended or without_workers == _GIVE_UP_POLLS:
            return queue.statuses
        # A worker may have been about to leave when the last experiment was queued; then another one is started.
        if QUEUED in queue.statuses.values() and (not told or without_workers == _RESTART_POLLS):
            _start_workers(jobs)
        told = queue.statuses
        without_workers = 0 if queue.has_workers else without_workers + 1
        time.sleep(poll_s)


def _start_workers(jobs: int) -> None:
    """See that `jobs` workers run what is queued; they end by themselves when nothing is left."""
    # They keep open what they were started with: whoever reads their output through a pipe waits for their end.
    command = ["dvc", "queue", "start", "--jobs", str(jobs)]
    if subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode != 0:
        raise RuntimeError(f"`{' '.join(command)}` failed; it says why when it is run by hand")


def _dvc(*arguments: str) -> str:
    done = subprocess.run(["dvc", *arguments], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"dvc {' '.join(arguments)} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout
