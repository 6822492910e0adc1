"""A training stage is one run of MLflow, under one parent per pipeline execution. Tracking never fails a training.

Runs go to `MLFLOW_TRACKING_URI`, or to a local SQLite store (`mlflow.db` and `mlartifacts/`) where that is not set.
Training writes what it logs to a journal (`aerofuse.tracking.journal`) and waits for no server: a thread of its own
sends it. What MLflow has not taken by the end of the run is sent by the next one, or by `aerofuse mlflow send`.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from pydantic import Field

from aerofuse.common.params import Section
from aerofuse.tracking.addresses import summary, tracking_uri
from aerofuse.tracking.journal import MAX_PARAMS, MAX_POINTS, Entry, Journal
from aerofuse.tracking.run_request import describe_run
from aerofuse.tracking.sending import Sender
from aerofuse.tracking.store import set_defaults


class TrackingParams(Section):
    """MLflow; where to is `MLFLOW_TRACKING_URI`, or a local SQLite store where that is not set."""

    enabled: bool
    experiment: str = Field(min_length=1)
    system_metrics: bool = Field(description="log CPU, GPU and memory use of the machine while training")


logger = logging.getLogger(__name__)

# How long the end of a run waits until MLflow has the rest, in seconds.
_FINISH_S = 10.0
_FINISH_EARLY_S = 3.0  # after an error or a signal
_FINISH_LOCAL_S = 120.0  # SQLite: processes that start together queue up while the first makes the database


class Tracker:
    """What a training stage sees of its run. This one keeps nothing: tracking is off, or MLflow is not installed."""

    def log_params(self, params: Mapping[str, object]) -> None:
        """Keep `params`; nested mappings are flattened, their keys joined by dots. MLflow never changes a value."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Keep `metrics` at `step`, an epoch. NaN stays; MLflow makes an infinity the largest float."""

    def log_artifact(self, path: Path) -> None:
        """Keep a copy of the file `path`, or of the folder and all that is in it."""


class _MlflowTracker(Tracker):
    """One run, written to a journal that is sent while it is written."""

    def __init__(self, journal: Journal, uri: str, root: Path, *, watch_machine: bool) -> None:
        self._journal = journal
        self._local = uri.startswith("sqlite:")
        self._full = False
        self._sender = Sender(journal, uri, root)
        self._sender.start()
        self._monitor = MachineMonitor(self.log_metrics) if watch_machine else None

    def log_params(self, params: Mapping[str, object]) -> None:
        flat = [(name, str(value)) for name, value in _flatten(params)]
        for start in range(0, len(flat), MAX_PARAMS):
            self._keep(Entry(kind="params", values=dict(flat[start : start + MAX_PARAMS])))

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        now_ms = _now_ms()
        points = [(name, float(value), now_ms, step) for name, value in metrics.items()]
        for start in range(0, len(points), MAX_POINTS):
            self._keep(Entry(kind="metrics", points=points[start : start + MAX_POINTS]))

    def log_artifact(self, path: Path) -> None:
        if path.exists():
            self._keep(Entry(kind="artifact", path=str(path.absolute())))
        else:
            logger.warning("MLflow: there is no %s to keep a copy of", path)

    def close(self, status: str) -> None:
        """End the run as FINISHED, FAILED or KILLED, and say so if MLflow has not got all of it."""
        if self._monitor is not None:
            self._monitor.stop()
        self._keep(Entry(kind="end", status=status, time_ms=_now_ms()))
        early = _FINISH_S if status == "FINISHED" else _FINISH_EARLY_S
        self._sender.finish(_FINISH_LOCAL_S if self._local else early)
        if self._journal.entries and not self._sender.in_trouble:  # else it was said
            logger.warning(
                "MLflow at %s has not taken all of this run. The rest is in %s, and sent by the next run, or by "
                "`aerofuse mlflow send`",
                self._journal.run.uri,
                self._journal.folder,
            )

    def _keep(self, entry: Entry) -> None:
        try:
            self._journal.append(entry)
        except OSError as error:
            if not self._full:
                logger.warning("what is logged for MLflow cannot be kept: %s", error)
            self._full = True
        else:
            self._sender.news.set()


@contextmanager
def track_run(stage: str, params: TrackingParams, *, repo: Path | None = None) -> Iterator[Tracker]:
    """Track the stage `stage` as one run, which ends with the block: FINISHED, FAILED, or KILLED by a signal.

    `repo` holds the local store and the journals: by default `DVC_ROOT`, which names the main repository even in the
    temporary copy that an experiment runs in, else the current folder. Raises nothing but what the block raises.
    """
    root = (repo or Path(os.environ.get("DVC_ROOT", "."))).resolve()
    tracker = _open_run(stage, params, root) if params.enabled else None
    status = "FINISHED"
    try:
        yield tracker or Tracker()
    except BaseException as error:
        status = "KILLED" if isinstance(error, KeyboardInterrupt | SystemExit) else "FAILED"
        raise
    finally:
        if tracker is not None:
            tracker.close(status)


def _open_run(stage: str, params: TrackingParams, root: Path) -> _MlflowTracker | None:
    """Open a run, whether MLflow answers or not; return `None` and a warning where nothing can be kept for it."""
    set_defaults()
    try:
        import mlflow  # noqa: F401  # whether it is there, and not at once in several threads
    except ImportError as error:
        logger.warning("no MLflow run: %s; `pip install mlflow`, or set tracking.enabled: false", error)
        return None
    uri = tracking_uri(root)
    try:
        run = describe_run(stage, params.experiment, uri, root)
        journal = Journal(root / ".resume" / "mlflow" / run.key, run)
    except (OSError, RuntimeError) as error:  # params.yaml, git, the GPU's driver, the disk
        logger.warning("no MLflow run: %s", summary(error))
        return None
    return _MlflowTracker(journal, uri, root, watch_machine=params.system_metrics)


def _flatten(params: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in params.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class MachineMonitor:
    """Samples CPU, memory, disk, network and GPU with MLflow's meters, in a thread of its own.

    MLflow's own monitor ends for good when its server fails once.
    """

    def __init__(self, publish: Callable[[Mapping[str, float], int], None]) -> None:
        """`publish` is given the metrics and the number of the sample."""
        self._publish = publish
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="MachineMonitor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take no more samples."""
        self._stop.set()
        self._thread.join(1)  # second; a meter that hangs is not waited for any longer

    def _run(self) -> None:
        try:
            # MLflow's own 10 s leaves a short run with a point or two.
            interval_s = float(os.environ.get("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", 5))
            meters = _meters()
            for sample in count():
                for meter in meters:
                    meter.collect_metrics()
                if self._stop.wait(interval_s):
                    return
                metrics: dict[str, float] = {}
                for meter in meters:
                    metrics |= meter.aggregate_metrics()
                    meter.clear_metrics()
                self._publish({f"system/{name}": value for name, value in metrics.items()}, sample)
        except Exception as error:  # a meter's, and MLflow's meters raise what their libraries raise
            logger.warning("the machine is not watched any more: %s: %s", type(error).__name__, error)


def _meters() -> list[Any]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor
    from mlflow.system_metrics.metrics.rocm_monitor import ROCMMonitor

    everywhere: list[Any] = [CPUMonitor, DiskMonitor, NetworkMonitor]
    meters = [kind() for kind in everywhere]
    for kind in (GPUMonitor, ROCMMonitor):
        try:
            return [*meters, kind()]
        except Exception as error:  # no such GPU, no driver or no library
            logger.debug("%s: %s", kind.__name__, error)
    return meters
