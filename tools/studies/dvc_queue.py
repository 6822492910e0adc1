"""DVC's queue of experiments, through its commands: to queue, to start workers, to wait for the end."""

from __future__ import annotations

import logging
import re
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tools.studies.experiments import find_experiments

QUEUED, RUNNING, SUCCESS, FAILED = "Queued", "Running", "Success", "Failed"  # DVC's own words
MISSING = "Missing"  # the queue does not have it

_ROW = re.compile(rf"^[0-9a-f]{{7}}\s+(\S+)\s.*\b({QUEUED}|{RUNNING}|{SUCCESS}|{FAILED})\s*$", re.MULTILINE)
_NO_WORKERS = "Worker status: 0 active, 0 idle"
_LOOKS = 3  # at a queue whose files its workers just move
_RESTART_POLLS, _GIVE_UP_POLLS = 3, 12  # in a row without a worker; a busy machine's may be late with one answer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Queue:
    """How experiments stand in DVC's queue, by name, and whether a worker is there to run them."""

    statuses: Mapping[str, str]
    has_workers: bool


def read_queue(names: Iterable[str]) -> Queue:
    """How the experiments `names` stand now; one that has results is a `SUCCESS`, wherever they come from.

    Raises `RuntimeError` where DVC does not say.
    """
    for look in range(1, _LOOKS + 1):
        try:
            text = _dvc("queue", "status")
            break
        except RuntimeError:
            if look == _LOOKS:
                raise
            time.sleep(1)
    queued = dict(_ROW.findall(text))
    done = find_experiments("*")  # after the queue: DVC keeps the results before it calls an experiment a success
    statuses = {name: SUCCESS if name in done else queued.get(name, MISSING) for name in names}
    return Queue(statuses, _NO_WORKERS not in text)


def put(name: str, settings: Mapping[str, object], targets: Sequence[str]) -> None:
    """Queue the pipeline as it lies in the workspace, with changed parameters, up to the stages `targets`."""
    changes = [f"--set-param={key}={value}" for key, value in settings.items()]
    _dvc("exp", "run", "--queue", "--name", name, *changes, *targets)


def forget(name: str) -> None:
    """Take an experiment that has ended out of the queue."""
    _dvc("queue", "remove", name)


def read_log(name: str) -> list[str]:
    """The lines that an experiment has printed; where it never started, what DVC says of that."""
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
