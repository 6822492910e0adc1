from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from aerofuse.cli.main import main
from aerofuse.tracking import sending, store
from aerofuse.tracking.tracker import TrackingParams, track_run
from tests.tracking.helpers import Arrived, wait_until
from tests.tracking.trouble import TroubledMlflow, gone, refusing


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One for all tests, as creating one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"


@pytest.fixture
def params(request: pytest.FixtureRequest) -> TrackingParams:
    return TrackingParams(enabled=True, experiment=request.node.name, system_metrics=False)


@pytest.fixture
def arrived(database: str, params: TrackingParams) -> Arrived:
    return Arrived(database, params)


@pytest.fixture(autouse=True)
def server(
    database: str, params: TrackingParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TroubledMlflow]:
    """A server that is gone, and two runs that wait for it."""
    monkeypatch.chdir(tmp_path)
    troubled = TroubledMlflow(database)
    troubled.before = gone
    monkeypatch.setattr(store, "make_client", lambda uri: troubled)
    with mock.patch.dict(os.environ, {"MLFLOW_TRACKING_URI": "http://mlflow.invalid", "COLUMNS": "200"}):
        os.environ.pop("DVC_ROOT", None)
        (tmp_path / "curve.txt").write_text("a picture")
        for stage in ("train_a", "train_b"):
            with track_run(stage, params) as run:
                run.log_metrics({"loss": 1.0}, step=1)
                run.log_artifact(Path("curve.txt"))
        yield troubled


def table(capsys: pytest.CaptureFixture[str]) -> dict[str, list[str]]:
    """Of each run that was printed: entries, artifacts, refused and state."""
    lines = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if "-train_" in line]
    return {line[0].split("-")[1]: [cell.strip() for cell in line[1:]] for line in lines}


def test_list(server: TroubledMlflow, capsys: pytest.CaptureFixture[str]) -> None:
    server.calls.clear()
    assert main(["mlflow", "list"]) == 0
    assert table(capsys) == {"train_a": ["3", "1", "0", "waits"], "train_b": ["3", "1", "0", "waits"]}
    assert server.calls == []


def test_send(server: TroubledMlflow, arrived: Arrived, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.before = None
    assert main(["mlflow", "send", "--repo", str(tmp_path)]) == 0
    assert table(capsys) == {"train_a": ["3", "1", "0", "sent"], "train_b": ["3", "1", "0", "sent"]}
    for stage in ("train_a", "train_b"):
        assert arrived.curve(stage, "loss") == [(1, 1.0)]
        assert arrived.stage(stage).info.status == "FINISHED"
    assert main(["mlflow", "send"]) == 0
    assert "Nothing waits" in capsys.readouterr().out


def test_a_server_that_is_still_away_is_asked_once(server: TroubledMlflow, capsys: pytest.CaptureFixture[str]) -> None:
    server.calls.clear()
    assert main(["mlflow", "send"]) == 1
    rows = table(capsys)
    assert [row[:3] for row in rows.values()] == [["3", "1", "0"]] * 2
    assert all(row[3].startswith("left: ") and "connection refused" in row[3] for row in rows.values())
    assert server.calls == ["get_experiment_by_name", "search_experiments"]


def test_what_is_refused_stays_until_there_is_a_remedy(
    server: TroubledMlflow, arrived: Arrived, capsys: pytest.CaptureFixture[str]
) -> None:
    server.before = refusing("log_artifact")
    assert main(["mlflow", "send"]) == 1
    assert "left: 1 refused" in table(capsys)["train_a"][3]
    assert main(["mlflow", "list"]) == 0
    row = table(capsys)["train_a"]
    assert row[:3] == ["0", "1", "1"]
    assert "log_artifact is not valid" in row[3]
    assert main(["mlflow", "send"]) == 1
    server.before = None
    assert main(["mlflow", "send"]) == 0
    assert arrived.artifacts("train_a") == {"curve.txt": "a picture"}


def test_a_training_under_way_is_left_alone(
    server: TroubledMlflow,
    params: TrackingParams,
    arrived: Arrived,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sending, "RETRY_S", 3600.0)
    with track_run("train_c", params):
        wait_until(lambda: "train_c" in caplog.text)  # it has tried
        server.before = None
        assert main(["mlflow", "send"]) == 1
        rows = table(capsys)
        assert (rows["train_a"][3], rows["train_c"][3]) == ("sent", "left: being written by a training")
        assert main(["mlflow", "list"]) == 0
        assert table(capsys)["train_c"][3] == "being written by a training"
    assert arrived.stage("train_c").info.status == "FINISHED"


def test_a_password_is_asked_for(
    server: TroubledMlflow, params: TrackingParams, capsys: pytest.CaptureFixture[str]
) -> None:
    os.environ["MLFLOW_TRACKING_URI"] = "http://me:secret@mlflow.invalid"
    with track_run("train_c", params):
        pass
    server.before = None
    del os.environ["MLFLOW_TRACKING_URI"]
    assert main(["mlflow", "send"]) == 1
    printed = table(capsys)
    assert printed["train_a"][3] == "sent"
    assert "MLFLOW_TRACKING_URI" in printed["train_c"][3]
    os.environ["MLFLOW_TRACKING_URI"] = "http://me:secret@mlflow.invalid"
    assert main(["mlflow", "send"]) == 0


def test_what_a_console_cannot_show_is_escaped(params: TrackingParams, monkeypatch: pytest.MonkeyPatch) -> None:
    os.environ["MLFLOW_TRACKING_URI"] = "http://\U0001f6e9.invalid"
    with track_run("train_c", params):
        pass
    console = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(console, "gbk"))
    assert main(["mlflow", "list"]) == 0
    assert "http://\\U0001f6e9.invalid" in console.getvalue().decode("gbk")


def test_a_folder_that_is_not_there_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mlflow", "list", "--repo", "nowhere"]) == 2
    assert "--repo" in capsys.readouterr().err
