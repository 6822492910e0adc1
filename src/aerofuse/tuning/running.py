"""What `aerofuse tune` does: start a study and its workers and wait for them, or be a worker."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from filelock import FileLock

from aerofuse.tuning.page import write_report
from aerofuse.tuning.repository import RepositoryState, find_remote, read_state
from aerofuse.tuning.settings import check_settings
from aerofuse.tuning.study import StudySpec, connect, join_study, latest_trials, start_study, storage_errors
from aerofuse.tuning.worker import Worker
from aerofuse.tuning.workplace import FOLDER, workplace

logger = logging.getLogger(__name__)

_MAIN = "import sys; from aerofuse.cli.main import main; sys.exit(main())"
_POLL_S = 1.0


@dataclass(frozen=True)
class StudyPlace:
    """Where a study is: a storage, its `name` there, and how often workers say that they live."""

    storage: str
    name: str | None
    heartbeat_s: int


def run_study(
    place: StudyPlace,
    settings: Mapping[str, str],
    *,
    model: str,
    trials: int | None,
    prune: bool,
    workers: int,
    options: Sequence[str],
) -> int:
    """Start a study or go on with it, with so many workers here, and report on it when nothing is left to do.

    `options` are given to the workers. Returns the exit status. Raises `ValueError` where it cannot start.
    """
    _prepare()
    state = _read_state()
    spec = StudySpec(settings, state.fingerprint, model, trials, prune)
    spec.rows()
    check_settings(spec.parsed)
    storage = connect(place.storage, place.heartbeat_s, create=True)
    with storage_errors(place.storage):
        study = start_study(storage, place.name or spec.default_name(), spec, state.commit)
        logger.info("study %s: %d trials", study.study_name, len(latest_trials(study)))
        processes = [_start_worker(place, study.study_name, options) for _ in range(workers)]
        try:
            _wait(study, processes)
        except KeyboardInterrupt:
            sys.stderr.write(f"\naerofuse tune: stopped; the same command goes on with {study.study_name}\n")
            return 130
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()
        page, is_done = write_report(study, Path("reports"))
    sys.stdout.write(page)
    return int(not is_done)


def run_worker(place: StudyPlace, *, push: bool) -> int:
    """Work for a study until nothing is left to do. Returns the exit status. Raises `ValueError` where it cannot."""
    _prepare()
    state = _read_state()
    storage = connect(place.storage, place.heartbeat_s, create=False)
    with storage_errors(place.storage):
        study = join_study(storage, place.name, state.fingerprint)
        with workplace(Path.cwd(), state) as own:
            worker = Worker(study, own, find_remote() if push else None)
            worker.work()
    return int(worker.failures > 0)


def _prepare() -> None:
    """Log what happens, and let a cluster's SIGTERM do what Ctrl-C does: give the trial back."""
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("aerofuse.tuning").setLevel(logging.INFO)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    threading.excepthook = _note_silence
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what is in the background deaf to it


def _note_silence(failure: threading.ExceptHookArgs) -> None:
    """Say in one line that the thread of the heartbeat has ended: others may take over the trial."""
    logger.warning("no heartbeat any more: %s", str(failure.exc_value).partition("\n")[0])


def _read_state() -> RepositoryState:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with FileLock(FOLDER / "lock"):  # git locks its index for a moment, and refuses others
        return read_state()


def _start_worker(place: StudyPlace, name: str, options: Sequence[str]) -> subprocess.Popen[bytes]:
    where = ["--storage", place.storage, "--name", name, "--heartbeat", str(place.heartbeat_s)]
    command = [sys.executable, "-c", _MAIN, "tune", "--worker", *where, *options]
    # Ctrl-C is for this process, which then ends them.
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)


def _wait(study: optuna.Study, processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait until all rows have ended or, where there are workers here, these have."""
    while any(not trial.state.is_finished() for trial in latest_trials(study).values()):
        if processes and all(process.poll() is not None for process in processes):
            return
        optuna.storages.fail_stale_trials(study)
        time.sleep(_POLL_S)
    for process in processes:
        process.wait()
