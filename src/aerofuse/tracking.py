"""MLflow, and nothing else knows of it: a training stage is one run, under one parent per pipeline execution.

Runs go to `MLFLOW_TRACKING_URI`, or to a local SQLite store (`mlflow.db` and `mlartifacts/`) where that is
not set. Tracking never fails a training: a store that is out of reach, at any time, is one warning.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aerofuse.params.tracking import TrackingParams

logger = logging.getLogger(__name__)

# What MLflow does unless told otherwise, by default: minutes of retries, telemetry, chatter on stdout.
_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",  # seconds
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
_CONNECT_TIMEOUT_S = 5
_LOCK_TIMEOUT_S = 60  # the first run of all creates the database, in seconds
_SYSTEM_METRICS_INTERVAL_S = 5  # MLflow's own 10 s leaves a short run with a point or two
_PARAMS_PER_BATCH = 100  # MLflow refuses more in one call
# Whose changes make a run dirty: what it follows from, not dvc.lock and metrics, which the pipeline itself writes.
_SOURCES = ("src", "stages", "dvc.yaml", "params.yaml")
_EXECUTION_TAG = "execution"  # on parents only


class Tracker:
    """What a training stage sees of its run. This one keeps nothing: tracking is off, or out of reach."""

    def log_params(self, params: Mapping[str, object]) -> None:
        """Keep `params`; nested mappings are flattened, their keys joined by dots."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Keep `metrics` at `step`, an epoch. NaN stays; MLflow makes an infinity the largest float."""

    def log_artifact(self, path: Path) -> None:
        """Keep a copy of the file `path`, or of the folder and all that is in it."""


class _MlflowTracker(Tracker):
    """One run of MLflow; falls silent after the first call that fails."""

    def __init__(self, client: Any, run_id: str, parent_id: str, monitor: Any) -> None:
        self._client = client
        self._run_id = run_id
        self._parent_id = parent_id
        self._monitor = monitor  # of the machine: samples in a thread of its own until `close`
        self._silent = False

    def log_params(self, params: Mapping[str, object]) -> None:
        from mlflow.entities import Param

        entries = [Param(name, str(value)) for name, value in _flatten(params)]
        for start in range(0, len(entries), _PARAMS_PER_BATCH):
            batch = entries[start : start + _PARAMS_PER_BATCH]
            self._attempt(self._client.log_batch, self._run_id, params=batch)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now_ms = time.time_ns() // 1_000_000
        batch = [Metric(name, float(value), now_ms, step) for name, value in metrics.items()]
        self._attempt(self._client.log_batch, self._run_id, metrics=batch)

    def log_artifact(self, path: Path) -> None:
        if path.is_dir():
            self._attempt(self._client.log_artifacts, self._run_id, str(path), path.name)
        elif path.is_file():
            self._attempt(self._client.log_artifact, self._run_id, str(path))
        else:
            logger.warning("MLflow: there is no %s to keep a copy of", path)

    def close(self, status: str) -> None:
        """End the run as FINISHED, FAILED or KILLED; the parent says how its latest stage ended."""
        if self._monitor is not None:
            self._monitor.finish()
        self._attempt(self._client.set_terminated, self._run_id, status)
        self._attempt(self._client.set_terminated, self._parent_id, status)

    def _attempt(self, call: Callable[..., object], *args: object, **kwargs: object) -> None:
        if self._silent:
            return
        try:
            call(*args, **kwargs)
        # Everything, for MLflow hands through whatever its parts raise: sqlalchemy's errors, botocore's,
        # protobuf's ParseError, ImportError for a driver. Only MLflow's own code runs in here.
        except Exception as error:
            self._silent = True
            logger.warning("MLflow failed, training goes on without it: %s", _summary(error))
            logger.debug("MLflow failed", exc_info=True)


@contextmanager
def track_run(stage: str, params: TrackingParams, *, repo: Path | None = None) -> Iterator[Tracker]:
    """The run of the training stage `stage`; ends with the block: FINISHED, FAILED, or KILLED by Ctrl-C.

    `repo` holds the local store; by default `DVC_ROOT`, which names the main repository even in the temporary
    copy that an experiment runs in, else the current folder. Raises nothing but what the block raises.
    """
    root = (repo or Path(os.environ.get("DVC_ROOT", "."))).resolve()
    tracker = _open_run(stage, params, root) if params.enabled else None
    status = "FINISHED"
    try:
        yield tracker or Tracker()
    except BaseException as error:
        status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
        raise
    finally:
        if tracker is not None:
            tracker.close(status)


def _open_run(stage: str, params: TrackingParams, root: Path) -> _MlflowTracker | None:
    """A new run, or `None` and a warning where that is not possible."""
    from filelock import FileLock

    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        logger.warning("no MLflow run: %s; `pip install mlflow`, or set tracking.enabled: false", error)
        return None
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(root / 'mlflow.db').as_posix()}"
    try:
        # Processes that start together would each migrate a new database, and each make a parent.
        with FileLock(root / "mlflow.db.lock", timeout=_LOCK_TIMEOUT_S):
            _knock(uri)
            client = MlflowClient(tracking_uri=uri)
            artifacts = (root / "mlartifacts").as_uri() if uri.startswith("sqlite:") else None
            experiment_id = _experiment(client, params.experiment, artifacts)
            tags = _tags()
            parent_id = _parent_run(client, experiment_id, tags)
            _end_abandoned_runs(client, experiment_id, parent_id, stage)
            tags |= {"mlflow.parentRunId": parent_id, "mlflow.source.name": f"stages/{stage}.py"}
            tags["dvc_stage"] = os.environ.get("DVC_STAGE", stage)
            run_id = client.create_run(experiment_id, tags=tags, run_name=stage).info.run_id
        monitor = _system_monitor(run_id, uri) if params.system_metrics else None
    except Exception as error:  # as in _MlflowTracker._attempt
        logger.warning("no MLflow run at %s, training goes on without it: %s", _hide_password(uri), _summary(error))
        logger.debug("no MLflow run", exc_info=True)
        return None
    return _MlflowTracker(client, run_id, parent_id, monitor)


def _system_monitor(run_id: str, uri: str) -> Any:
    """MLflow's thread that logs the use of CPU, memory, disk, network and GPU, started."""
    from mlflow.system_metrics import system_metrics_monitor

    kind: Any = system_metrics_monitor.SystemMetricsMonitor  # has no types
    monitor = kind(run_id, _SYSTEM_METRICS_INTERVAL_S, tracking_uri=uri)
    monitor.start()
    return monitor


def _knock(uri: str) -> None:
    """Connect to an SQL store once, for MLflow itself tries for 100 s. Raises what sqlalchemy raises."""
    if not uri.startswith(("sqlite", "postgresql", "mysql")):
        return
    from sqlalchemy import create_engine

    timeout = "timeout" if uri.startswith("sqlite") else "connect_timeout"
    engine = create_engine(uri, connect_args={timeout: _CONNECT_TIMEOUT_S})
    engine.connect().close()
    engine.dispose()


def _experiment(client: Any, name: str, artifacts: str | None) -> str:
    """The id of the experiment `name`, which is created if need be."""
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found else client.create_experiment(name, artifact_location=artifacts))


def _parent_run(client: Any, experiment_id: str, tags: Mapping[str, str]) -> str:
    """The id of the run that groups this execution of the pipeline, found by its tag or created."""
    commit, name = tags.get("mlflow.source.git.commit", ""), tags.get("dvc_exp_name", "")
    if name:  # the same name may be used again on top of another commit
        execution = f"{name} {os.environ.get('DVC_EXP_BASELINE_REV', commit)}"
    else:
        params = Path("params.yaml")
        content = params.read_bytes() if params.is_file() else b""
        execution = f"{commit} {hashlib.sha256(content).hexdigest()}"
        name = (commit[:8] or "no commit") + ("-dirty" if tags["git_dirty"] == "true" else "")
    key = hashlib.sha256(execution.encode()).hexdigest()[:16]
    found = client.search_runs([experiment_id], f"tags.{_EXECUTION_TAG} = '{key}'", max_results=1)
    if not found:
        parent = client.create_run(experiment_id, tags={**tags, _EXECUTION_TAG: key}, run_name=name)
        return str(parent.info.run_id)
    client.update_run(found[0].info.run_id, status="RUNNING")
    return str(found[0].info.run_id)


def _end_abandoned_runs(client: Any, experiment_id: str, parent_id: str, stage: str) -> None:
    """Mark runs of the same stage that still say RUNNING: their process was killed without a word."""
    same = f"tags.`mlflow.parentRunId` = '{parent_id}' and attributes.run_name = '{stage}'"
    for run in client.search_runs([experiment_id], f"{same} and attributes.status = 'RUNNING'"):
        client.set_terminated(run.info.run_id, "KILLED")


def _tags() -> dict[str, str]:
    """What a run came from: commit, whether there are changes on top, experiment, device."""
    tags = {
        "mlflow.source.git.commit": _git("rev-parse", "HEAD"),
        "git_dirty": "true" if _git("status", "--porcelain", "--", *_SOURCES) else "false",
        "dvc_exp_name": os.environ.get("DVC_EXP_NAME", ""),
        "device": _device(),
    }
    return {name: value for name, value in tags.items() if value}


def _git(*arguments: str) -> str:
    """What git says about the current folder; nothing where there is no git, no repository or no commit."""
    try:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _device() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def _flatten(params: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in params.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _summary(error: Exception) -> str:
    """The first line of the message, short and without a password."""
    return _hide_password(f"{type(error).__name__}: {error}".splitlines()[0])[:300]


def _hide_password(text: str) -> str:
    return re.sub(r"(?<=://)[^/@\s]+@", "***@", text)
