"""A real `mlflow server` on a real PostgreSQL, killed and stopped half way: in the end it has everything, once."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aerofuse.cli.main import main
from aerofuse.tracking import sending, tracker
from aerofuse.tracking.tracker import TrackingParams, track_run
from tests.tracking.helpers import Arrived, entries_of, find_journals, log_epochs, losses, nothing_waits, wait_until
from tests.tracking.servers import MlflowServer, PostgreSQL

pytestmark = pytest.mark.slow

_BATCHES = 12


@pytest.fixture(scope="module")
def database() -> Iterator[PostgreSQL]:
    with tempfile.TemporaryDirectory() as folder:
        database = PostgreSQL(Path(folder))
        database.start()
        yield database
        database.stop()


@pytest.fixture(scope="module")
def started_server(database: PostgreSQL) -> Iterator[MlflowServer]:
    with tempfile.TemporaryDirectory() as folder:
        server = MlflowServer(Path(folder), database.uri)
        server.start()
        yield server
        server.kill()


@pytest.fixture
def server(started_server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> MlflowServer:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", started_server.uri)
    monkeypatch.setattr(sending, "RETRY_S", 0.2)
    return started_server


@pytest.fixture
def arrived(started_server: MlflowServer, params: TrackingParams) -> Arrived:
    return Arrived(started_server.uri, params)


def _check_both_stages(arrived: Arrived, start_ms: int, end_ms: int) -> None:
    """All of both stages is there, once, with the times at which it happened."""
    assert arrived.stages() == ["train_stage_a", "train_stage_b"]
    (parent,) = arrived.parents()
    for stage, seed in (("train_stage_a", "0"), ("train_stage_b", "1")):
        found = arrived.stage(stage)
        assert found.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert found.data.params["seed"] == seed
        assert arrived.curve(stage, "loss") == losses(range(1, 20))
        assert len(arrived.points(stage, "accuracy")) == 19
        assert all(start_ms <= point.timestamp <= end_ms for point in arrived.points(stage, "accuracy"))
        assert found.info.status == "FINISHED"
        assert start_ms <= found.info.start_time < found.info.end_time <= end_ms
        assert arrived.artifacts(stage)["curve.txt"] == "a picture"
    for number in (0, 500):
        assert arrived.curve("train_stage_a", f"metric{number}") == [(step, float(step)) for step in range(_BATCHES)]
    params_a = arrived.stage("train_stage_a").data.params
    assert (params_a["late"], params_a["many.149"]) == ("yes", "149")
    assert arrived.artifacts("train_stage_a")["plots/confusion.txt"] == "a table"
    assert parent.info.status == "FINISHED"


def test_killed_half_way_and_stopped_while_it_is_sent_to(
    server: MlflowServer, arrived: Arrived, params: TrackingParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = tmp_path / "curve.txt"
    picture.write_text("a picture")
    plots = tmp_path / "plots"
    plots.mkdir()
    (plots / "confusion.txt").write_text("a table")
    start_ms = time.time_ns() // 1_000_000
    with track_run("train_stage_a", params) as run:
        run.log_params({"seed": 0, "many": {str(number): number for number in range(150)}})
        log_epochs(run, range(1, 4))
        run.log_artifact(picture)
        wait_until(lambda: arrived.stages() == ["train_stage_a"] and arrived.artifacts("train_stage_a") != {})
        server.kill()
        log_epochs(run, range(4, 20))
        run.log_params({"late": "yes"})
        run.log_artifact(plots)
        for batch in range(_BATCHES):  # two of them are more than MLflow takes at once
            run.log_metrics({f"metric{number}": float(batch) for number in range(501)}, step=batch)
    with track_run("train_stage_b", params) as run:
        run.log_params({"seed": 1})
        log_epochs(run, range(1, 20))
        run.log_artifact(picture)
    end_ms = time.time_ns() // 1_000_000
    first, _ = find_journals(tmp_path)
    assert main(["mlflow", "send"]) == 1

    server.start()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    waiting = len(entries_of(first)[0])
    statuses: list[int] = []
    sender = threading.Thread(target=lambda: statuses.append(main(["mlflow", "send"])))
    sender.start()
    wait_until(lambda: len(entries_of(first)[0]) < waiting - 5)
    server.pause()
    sender.join()
    server.go_on()  # and takes what it was asked for, late and unseen
    assert statuses == [1]
    assert 0 < len(entries_of(first)[0]) < waiting - 5

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    assert main(["mlflow", "send"]) == 0
    assert nothing_waits(tmp_path)
    _check_both_stages(arrived, start_ms, end_ms)


@pytest.mark.parametrize("what", ["server", "database"])
def test_stopped_half_way_it_answers_again_within_the_run(
    what: str, server: MlflowServer, database: PostgreSQL, arrived: Arrived, params: TrackingParams, tmp_path: Path
) -> None:
    stopped = server if what == "server" else database
    with track_run("train", params) as run:
        log_epochs(run, range(1, 3))
        wait_until(lambda: arrived.stages() == ["train"] and arrived.curve("train", "loss") == losses(range(1, 3)))
        stopped.pause()
        log_epochs(run, range(3, 1000))
        (folder,) = find_journals(tmp_path)
        assert len(entries_of(folder)[0]) >= 997  # all were logged while none was answered
        stopped.go_on()
        wait_until(lambda: arrived.curve("train", "loss") == losses(range(1, 1000)))
    assert nothing_waits(tmp_path)
    assert arrived.stage("train").info.status == "FINISHED"


def test_a_database_without_a_server_that_stops_half_way(
    server: MlflowServer,
    database: PostgreSQL,
    arrived: Arrived,
    params: TrackingParams,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """MLflow's own limits do not cover this one: its client would wait for ever."""
    with track_run("made through the server", params):
        pass
    os.environ["MLFLOW_TRACKING_URI"] = database.uri
    monkeypatch.setattr(tracker, "_FINISH_S", 0.5)
    with track_run("train", params) as run:
        log_epochs(run, range(1, 3))
        wait_until(lambda: "train" in arrived.stages() and arrived.curve("train", "loss") == losses(range(1, 3)))
        database.pause()
        log_epochs(run, range(3, 50))
    assert len(find_journals(tmp_path)) == 1  # the run has ended without an answer
    database.go_on()
    wait_until(lambda: nothing_waits(tmp_path))
    assert arrived.curve("train", "loss") == losses(range(1, 50))
    assert arrived.stage("train").info.status == "FINISHED"
