"""Everything that is asked of MLflow, one blocking call after the other.

MLflow and its parts raise whatever they please: sqlalchemy's errors, botocore's, protobuf's ParseError, ImportError for
a driver. `Store` makes two of them: `AwayError` and `RefusedError`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from aerofuse.tracking.addresses import advice, summary
from aerofuse.tracking.journal import Entry
from aerofuse.tracking.run_request import RunRequest

# What MLflow does unless told otherwise, by default: minutes of retries, telemetry, chatter on stdout.
_DEFAULTS = {
    # Our own attempts look first whether the last one has arrived; MLflow's would make a run twice.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",  # seconds
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
_EXECUTION_TAG = "execution"  # on parents only
_KEY_TAG = "run_key"  # on runs of stages, which are found again by it


class AwayError(Exception):
    """MLflow is out of reach; the message says why in one line, without a password."""


class RefusedError(Exception):
    """MLflow answers, and does not take this; the message says why in one line, without a password."""


class RunIds(NamedTuple):
    """A run of MLflow and the run that groups the execution it is part of."""

    run_id: str
    parent_id: str


def set_defaults() -> None:
    """Set MLflow's environment variables, before MLflow is imported; what the user has set stays."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)


def make_client(uri: str) -> Any:
    """Return MLflow's client of the store at `uri`; a database has answered by then."""
    from mlflow import MlflowClient

    _knock(uri)
    return MlflowClient(tracking_uri=uri)


class Store:
    """One store of MLflow's, for one thread; connected to at the first call that gets an answer."""

    def __init__(self, uri: str, root: Path) -> None:
        self._uri = uri
        # Processes that start together would each migrate a new database, and each make a parent.
        self._one_process_at_a_time = FileLock(root / "mlflow.db.lock", timeout=120)
        self._connected: Any = None

    def find(self, request: RunRequest, *, running: bool) -> RunIds:
        """Return the run that `request` describes, made where MLflow lacks it; `running` sets its parent to run.

        Raises `AwayError` or `RefusedError`.
        """
        with self._refusals(), self._one_process_at_a_time:
            experiment_id = self._experiment(request)
            tags = {**request.tags, _EXECUTION_TAG: request.execution}
            parent_id = self._find_or_create(
                experiment_id, request, request.execution_name, tags, found_by=_EXECUTION_TAG
            )
            if running:
                self._client.update_run(parent_id, status="RUNNING")
            tags = {
                **request.tags,
                "mlflow.parentRunId": parent_id,
                "mlflow.source.name": f"stages/{request.stage}.py",
                "dvc_stage": request.dvc_stage,
                _KEY_TAG: request.key,
            }
            run_id = self._find_or_create(experiment_id, request, request.stage, tags, found_by=_KEY_TAG)
            return RunIds(run_id, parent_id)

    def send(self, ids: RunIds, entry: Entry, folder: Path) -> None:
        """Send an entry of the journal in `folder`; the same again changes nothing. Raises as `find`."""
        from mlflow.entities import Metric, Param

        with self._refusals():
            match entry.kind:
                case "params":
                    self._client.log_batch(ids.run_id, params=[Param(*item) for item in entry.values.items()])
                case "metrics":
                    self._client.log_batch(ids.run_id, metrics=[Metric(*point) for point in entry.points])
                case "artifact":
                    path = folder / entry.path
                    if path.is_dir():
                        self._client.log_artifacts(ids.run_id, str(path), path.name)
                    else:
                        self._client.log_artifact(ids.run_id, str(path))
                case "end":
                    self._end(ids, entry)

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Raise `RefusedError` for what fails while MLflow answers other calls, `AwayError` where it does not.

        Without the difference, one thing that makes a server stumble would keep back all that come after it.
        """
        try:
            yield
        except Exception as refusal:
            try:
                self._client.search_experiments(max_results=1)  # of the database behind a server, too
            except Exception as away:
                raise AwayError(summary(away) + advice(self._uri)) from away
            raise RefusedError(summary(refusal)) from refusal

    @property
    def _client(self) -> Any:
        if self._connected is None:
            with self._one_process_at_a_time:
                self._connected = make_client(self._uri)
        return self._connected

    def _experiment(self, request: RunRequest) -> str:
        found = self._client.get_experiment_by_name(request.experiment)
        if found is None:
            return str(self._client.create_experiment(request.experiment, artifact_location=request.artifacts))
        return str(found.experiment_id)

    def _find_or_create(
        self, experiment_id: str, request: RunRequest, name: str, tags: dict[str, str], *, found_by: str
    ) -> str:
        filter_ = f"tags.{found_by} = '{tags[found_by]}'"
        found = self._client.search_runs(
            [experiment_id], filter_, max_results=1, order_by=["attributes.start_time ASC"]
        )
        run = found[0] if found else self._client.create_run(experiment_id, request.start_ms, tags, name)
        return str(run.info.run_id)

    def _end(self, ids: RunIds, end: Entry) -> None:
        """End the run; its parent says how its latest stage ended."""
        self._client.set_terminated(ids.run_id, end.status, end.time_ms)
        experiment_id = self._client.get_run(ids.parent_id).info.experiment_id
        later = f"tags.`mlflow.parentRunId` = '{ids.parent_id}' and attributes.start_time > {end.time_ms}"
        if not self._client.search_runs([experiment_id], later, max_results=1):
            self._client.set_terminated(ids.parent_id, end.status, end.time_ms)


def _knock(uri: str) -> None:
    """Connect to an SQL store once, for MLflow itself tries for 100 s. Raises what sqlalchemy raises."""
    if not uri.startswith(("sqlite", "postgresql", "mysql")):
        return
    from sqlalchemy import create_engine

    timeout = "timeout" if uri.startswith("sqlite") else "connect_timeout"
    engine = create_engine(uri, connect_args={timeout: 5})  # seconds
    engine.connect().close()
    engine.dispose()
