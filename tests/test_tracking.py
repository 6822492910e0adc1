"""What a training stage leaves in MLflow, and that MLflow in trouble never costs a training."""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from aerofuse.params.tracking import TrackingParams
from aerofuse.tracking import track_run


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder with one database for all tests, as creating one takes seconds; experiments keep them apart."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(autouse=True)
def clean_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty current folder and no variables of DVC or MLflow, neither before the test nor after it."""
    monkeypatch.chdir(tmp_path)
    with mock.patch.dict(os.environ):
        for name in [name for name in os.environ if name.startswith(("DVC_", "MLFLOW_"))]:
            del os.environ[name]
        yield


@pytest.fixture
def params(request: pytest.FixtureRequest) -> TrackingParams:
    """An experiment of the test's own."""
    return TrackingParams(enabled=True, experiment=request.node.name, system_metrics=False)


class Store:
    """What is found in the database under one experiment."""

    def __init__(self, root: Path, params: TrackingParams) -> None:
        from mlflow import MlflowClient

        self.client: Any = MlflowClient(tracking_uri=f"sqlite:///{root / 'mlflow.db'}")
        experiment: Any = self.client.get_experiment_by_name(params.experiment)
        self.experiment = experiment.experiment_id

    def runs(self) -> list[Any]:
        """All runs of the experiment, oldest first."""
        return list(self.client.search_runs([self.experiment], order_by=["attributes.start_time ASC"]))

    def parents(self) -> list[Any]:
        """The runs without a parent."""
        return [run for run in self.runs() if "mlflow.parentRunId" not in run.data.tags]

    def stage(self, name: str) -> Any:
        """The one run of the stage `name`."""
        (run,) = [run for run in self.runs() if run.info.run_name == name]
        return run


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Messages of level WARNING and above from the tracker."""
    own = [record for record in caplog.records if record.name == "aerofuse.tracking"]
    return [record.getMessage() for record in own if record.levelno >= logging.WARNING]


def git(*arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def test_params_metrics_and_artifacts_are_kept(store: Path, params: TrackingParams, tmp_path: Path) -> None:
    picture = tmp_path / "curve.txt"
    picture.write_text("a picture")
    folder = tmp_path / "plots"
    folder.mkdir()
    (folder / "confusion.txt").write_text("a table")
    with track_run("train_stage_a", params, repo=store) as tracker:
        tracker.log_params({"seed": 0, "training": {"task_weights": {"type": 1.0}, "mixed_precision": "no"}})
        tracker.log_params({f"many.{number}": number for number in range(250)})  # MLflow takes 100 at a time
        tracker.log_metrics({"loss": 2.0, "accuracy": 0.25}, step=1)
        tracker.log_metrics({"loss": 1.0, "accuracy": 0.5}, step=2)
        tracker.log_artifact(picture)
        tracker.log_artifact(folder)

    found = Store(store, params)
    run = found.stage("train_stage_a")
    assert run.info.status == "FINISHED"
    kept = run.data.params
    assert kept["training.task_weights.type"] == "1.0"
    assert (kept["seed"], kept["training.mixed_precision"], kept["many.249"]) == ("0", "no", "249")
    history = found.client.get_metric_history(run.info.run_id, "loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 2.0), (2, 1.0)]
    for name, content in {"curve.txt": "a picture", "plots/confusion.txt": "a table"}.items():
        copy = Path(found.client.download_artifacts(run.info.run_id, name, str(tmp_path)))
        assert copy.read_text() == content
    assert [path.name for path in (store / "mlartifacts").rglob("curve.txt")] == ["curve.txt"]


def test_numbers_that_are_not_finite_are_accepted(
    store: Path, params: TrackingParams, caplog: pytest.LogCaptureFixture
) -> None:
    with track_run("train", params, repo=store) as tracker:
        tracker.log_metrics({"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1.0}, step=1)
    metrics = Store(store, params).stage("train").data.metrics
    assert math.isnan(metrics["a"])
    assert metrics["b"] > 1e300
    assert metrics["c"] < -1e300
    assert metrics["d"] == 1.0
    assert warnings_of(caplog) == []


def test_a_missing_artifact_is_a_warning_and_no_more(
    store: Path, params: TrackingParams, caplog: pytest.LogCaptureFixture
) -> None:
    with track_run("train", params, repo=store) as tracker:
        tracker.log_artifact(Path("nowhere.png"))
        tracker.log_metrics({"loss": 1.0}, step=1)
    assert "nowhere.png" in warnings_of(caplog)[0]
    assert Store(store, params).stage("train").data.metrics == {"loss": 1.0}


def test_two_stages_of_one_execution_share_a_parent(store: Path, params: TrackingParams) -> None:
    for stage in ("train_stage_a", "train_stage_b"):
        with track_run(stage, params, repo=store):
            (parent,) = Store(store, params).parents()
            assert parent.info.status == "RUNNING"
    found = Store(store, params)
    (parent,) = found.parents()
    assert parent.info.status == "FINISHED"
    for stage in ("train_stage_a", "train_stage_b"):
        assert found.stage(stage).data.tags["mlflow.parentRunId"] == parent.info.run_id


def test_an_experiment_has_a_parent_of_its_own_with_its_name(store: Path, params: TrackingParams) -> None:
    for experiment, baseline in [("fusion-add", "1"), ("fusion-attention", "1"), ("fusion-add", "2")]:
        os.environ |= {"DVC_EXP_NAME": experiment, "DVC_EXP_BASELINE_REV": baseline, "DVC_STAGE": "train"}
        for stage in ("train", "evaluate"):
            with track_run(stage, params, repo=store):
                pass
    found = Store(store, params)
    assert [run.info.run_name for run in found.parents()] == ["fusion-add", "fusion-attention", "fusion-add"]
    for parent in found.parents():
        children = [r for r in found.runs() if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
        assert [run.info.run_name for run in children] == ["train", "evaluate"]
        assert {run.data.tags["dvc_exp_name"] for run in children} == {parent.info.run_name}
        assert {run.data.tags["dvc_stage"] for run in children} == {"train"}


def test_without_an_experiment_commit_and_params_make_the_execution(store: Path, params: TrackingParams) -> None:
    file = Path("params.yaml")
    file.write_text("seed: 0")
    lock = Path("dvc.lock")
    lock.write_text("before")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    commit = git("rev-parse", "HEAD")
    lock.write_text("written by the pipeline, which is no change of what it runs")
    with track_run("one", params, repo=store):
        pass
    file.write_text("seed: 1")
    for stage in ("two", "three"):
        with track_run(stage, params, repo=store):
            pass
    found = Store(store, params)
    assert [run.info.run_name for run in found.parents()] == [commit[:8], f"{commit[:8]}-dirty"]
    tags = [found.stage(stage).data.tags for stage in ("one", "two", "three")]
    assert {tag["mlflow.source.git.commit"] for tag in tags} == {commit}
    assert [tag["git_dirty"] for tag in tags] == ["false", "true", "true"]
    assert all(tag["device"] for tag in tags)
    assert tags[1]["mlflow.parentRunId"] == tags[2]["mlflow.parentRunId"] != tags[0]["mlflow.parentRunId"]


@pytest.mark.parametrize(
    ("error", "status"),
    [(RuntimeError("loss is NaN"), "FAILED"), (SystemExit(1), "FAILED"), (KeyboardInterrupt(), "KILLED")],
)
def test_a_training_that_ends_early_says_how(
    store: Path, params: TrackingParams, error: BaseException, status: str
) -> None:
    with pytest.raises(type(error)) as raised, track_run("train", params, repo=store):
        raise error
    assert raised.value is error
    found = Store(store, params)
    assert found.stage("train").info.status == status
    assert found.parents()[0].info.status == status


def test_a_run_that_was_killed_without_a_word_is_ended_by_the_next(store: Path, params: TrackingParams) -> None:
    other, killed = (track_run(stage, params, repo=store) for stage in ("other", "train"))
    other.__enter__()
    killed.__enter__()
    with track_run("train", params, repo=store):
        found = Store(store, params)
        status = [run.info.status for run in found.runs() if run.info.run_name == "train"]
        assert status == ["KILLED", "RUNNING"]
        assert found.stage("other").info.status == "RUNNING"
    other.__exit__(None, None, None)


def test_the_store_is_in_the_main_repository(store: Path, params: TrackingParams, tmp_path: Path) -> None:
    os.environ["DVC_ROOT"] = str(store)  # as in the temporary copy that an experiment runs in
    Path("note.txt").write_text("kept")
    with track_run("train", params) as tracker:
        tracker.log_artifact(Path("note.txt"))
    assert Store(store, params).stage("train").info.status == "FINISHED"
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_the_users_own_settings_are_left_alone(store: Path, params: TrackingParams) -> None:
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "4"
    with track_run("train", params, repo=store):
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "4"
        assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_system_metrics_are_logged_on_request(store: Path, params: TrackingParams) -> None:
    os.environ["MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"] = "0.2"
    with track_run("train", params.model_copy(update={"system_metrics": True}), repo=store):
        found = Store(store, params)
        give_up = time.monotonic() + 30
        while not found.stage("train").data.metrics and time.monotonic() < give_up:
            time.sleep(0.1)
    assert "system/cpu_utilization_percentage" in found.stage("train").data.metrics
    assert "SystemMetricsMonitor" not in {thread.name for thread in threading.enumerate()}


def test_disabled_tracking_touches_nothing(tmp_path: Path, params: TrackingParams) -> None:
    with track_run("train", params.model_copy(update={"enabled": False}), repo=tmp_path) as tracker:
        tracker.log_params({"seed": 0})
        tracker.log_metrics({"loss": 1.0}, step=1)
        tracker.log_artifact(Path("nowhere.png"))
    assert list(tmp_path.iterdir()) == []


def test_importing_the_module_does_not_import_mlflow() -> None:
    code = "import aerofuse.tracking, sys; sys.exit('mlflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=with_this_source())


def test_without_mlflow_one_warning_names_the_remedy(
    tmp_path: Path, params: TrackingParams, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with track_run("train", params, repo=tmp_path) as tracker:
        tracker.log_metrics({"loss": 1.0}, step=1)
    (warning,) = warnings_of(caplog)
    assert "pip install mlflow" in warning


def test_an_unreachable_server_costs_seconds_and_a_warning(
    tmp_path: Path, params: TrackingParams, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    os.environ["MLFLOW_TRACKING_URI"] = f"http://someone:secret@127.0.0.1:{port}"
    start = time.monotonic()
    with track_run("train", params, repo=tmp_path) as tracker:
        tracker.log_metrics({"loss": 1.0}, step=1)
    assert time.monotonic() - start < 10
    (warning,) = warnings_of(caplog)
    assert f"127.0.0.1:{port}" in warning
    assert "secret" not in warning


@pytest.mark.parametrize("broken", ["a folder", "not a database"])
def test_a_broken_database_costs_a_warning(
    broken: str, tmp_path: Path, params: TrackingParams, caplog: pytest.LogCaptureFixture
) -> None:
    if broken == "a folder":
        (tmp_path / "mlflow.db").mkdir()
    else:
        (tmp_path / "mlflow.db").write_text("no database " * 1000)
    with track_run("train", params, repo=tmp_path) as tracker:
        tracker.log_metrics({"loss": 1.0}, step=1)
    (warning,) = warnings_of(caplog)
    assert "mlflow.db" in warning


class _SmallServer(BaseHTTPRequestHandler):
    """Answers what opening a run asks for."""

    def do_GET(self) -> None:
        run = {"info": {"run_id": "run", "experiment_id": "1", "status": "RUNNING"}, "data": {}}
        body = json.dumps({"experiment": {"experiment_id": "1"}, "runs": [], "run": run}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, format: str, *arguments: object) -> None:
        """Be silent: the test looks at what is printed."""


@pytest.mark.parametrize("vanishes", [False, True])
def test_a_server_that_vanishes_costs_one_warning(
    vanishes: bool,
    tmp_path: Path,
    params: TrackingParams,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    server = HTTPServer(("127.0.0.1", 0), _SmallServer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    os.environ["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{server.server_port}"
    epochs_done = 0
    with track_run("train", params, repo=tmp_path) as tracker:
        tracker.log_metrics({"loss": 3.0}, step=0)
        assert warnings_of(caplog) == []
        if vanishes:
            server.shutdown()
            server.server_close()
        for epoch in range(1, 4):
            tracker.log_metrics({"loss": 1.0}, step=epoch)
            epochs_done += 1
    if not vanishes:
        server.shutdown()
        server.server_close()
    thread.join()
    assert epochs_done == 3
    assert len(warnings_of(caplog)) == vanishes
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "\x1b" not in printed.err


def with_this_source() -> dict[str, str]:
    """The environment for a Python that imports the same `aerofuse`."""
    import aerofuse

    return {**os.environ, "PYTHONPATH": str(Path(aerofuse.__file__).parent.parent), "OMP_NUM_THREADS": "1"}


_ONE_OF_THREE = """
import sys, time
from pathlib import Path
import mlflow
from aerofuse.params.tracking import TrackingParams
from aerofuse.tracking import track_run

stage, root = sys.argv[1], Path(sys.argv[2])
(root / f"{stage}.ready").touch()
while len(list(root.glob("*.ready"))) < 3:
    time.sleep(0.01)
with track_run(stage, TrackingParams(enabled=True, experiment="e", system_metrics=False)) as tracker:
    tracker.log_metrics({"loss": 1.0}, step=1)
"""


@pytest.mark.slow
def test_three_processes_may_create_the_store_at_once(tmp_path: Path) -> None:
    stages = ("train_single_task", "train_multi_task", "train_stage_a")
    processes = [
        subprocess.Popen([sys.executable, "-c", _ONE_OF_THREE, stage, str(tmp_path)], env=with_this_source())
        for stage in stages
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    found = Store(tmp_path, TrackingParams(enabled=True, experiment="e", system_metrics=False))
    (parent,) = found.parents()
    for stage in stages:
        run = found.stage(stage)
        assert (run.info.status, run.data.metrics) == ("FINISHED", {"loss": 1.0})
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
