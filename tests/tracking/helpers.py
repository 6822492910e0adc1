"""What tests of tracking look at: what arrived, warnings, journals, and runs in between."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aerofuse.tracking.journal import Entry, read_journal, read_journals
from aerofuse.tracking.tracker import Tracker, TrackingParams, track_run


class Arrived:
    """What the MLflow at `uri` has of one experiment, asked for at every call."""

    def __init__(self, uri: str, params: TrackingParams) -> None:
        from mlflow import MlflowClient

        self.client: Any = MlflowClient(tracking_uri=uri)
        self._name = params.experiment

    def runs(self) -> list[Any]:
        """All runs of the experiment, oldest first."""
        experiment = self.client.get_experiment_by_name(self._name)
        if experiment is None:
            return []
        return list(self.client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"]))

    def parents(self) -> list[Any]:
        """The runs without a parent."""
        return [run for run in self.runs() if "mlflow.parentRunId" not in run.data.tags]

    def stages(self) -> list[str]:
        """Of the runs with a parent, the names."""
        return [run.info.run_name for run in self.runs() if "mlflow.parentRunId" in run.data.tags]

    def stage(self, name: str) -> Any:
        """The one run of the stage `name`."""
        (run,) = [run for run in self.runs() if run.info.run_name == name]
        return run

    def points(self, stage: str, name: str) -> list[Any]:
        """All that was kept of one metric of a stage, by step."""
        points = self.client.get_metric_history(self.stage(stage).info.run_id, name)
        return sorted(points, key=lambda point: point.step)

    def curve(self, stage: str, name: str) -> list[tuple[int, float]]:
        """Steps and values of one metric of a stage."""
        return [(point.step, point.value) for point in self.points(stage, name)]

    def artifacts(self, stage: str, folder: str = "") -> dict[str, str]:
        """Names and contents of a stage's artifacts."""
        run_id = self.stage(stage).info.run_id
        found: dict[str, str] = {}
        for file in self.client.list_artifacts(run_id, folder):
            if file.is_dir:
                found |= self.artifacts(stage, file.path)
            else:
                found[file.path] = Path(self.client.download_artifacts(run_id, file.path)).read_text()
        return found


def log_epochs(run: Tracker, epochs: range) -> None:
    """Two metrics of every epoch."""
    for epoch in epochs:
        run.log_metrics({"loss": 1 / epoch, "accuracy": 1 - 1 / epoch}, step=epoch)


def losses(epochs: range) -> list[tuple[int, float]]:
    """The curve that `log_epochs` makes."""
    return [(epoch, 1 / epoch) for epoch in epochs]


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Messages of level WARNING and above from tracking."""
    own = [record for record in caplog.records if record.name.startswith("aerofuse.tracking")]
    return [record.getMessage() for record in own if record.levelno >= logging.WARNING]


def wait_until(holds: Callable[[], bool], timeout_s: float = 60) -> None:
    """Return as soon as `holds()`; fail after `timeout_s`, which is for a machine that does other things as well."""
    give_up = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < give_up, "it did not come about"
        time.sleep(0.02)


def nothing_waits(root: Path) -> bool:
    """Whether all was sent, and no file of a journal is left behind."""
    folder = root / ".resume" / "mlflow"
    return not read_journals(root) and (not folder.exists() or list(folder.iterdir()) == [])


def find_journals(root: Path) -> list[Path]:
    """The folders of the journals that can be read, oldest first."""
    return [folder for folder, _, _ in read_journals(root)]


def entries_of(folder: Path) -> tuple[list[Entry], list[Entry]]:
    """What waits in a journal, and what MLflow has refused of it."""
    _, entries = read_journal(folder)
    return [entry for entry in entries if entry.reason is None], [entry for entry in entries if entry.reason]


def run_another(params: TrackingParams, stage: str = "next") -> None:
    with track_run(stage, params):
        pass
