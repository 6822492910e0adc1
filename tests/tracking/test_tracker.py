"""What a training stage leaves in MLflow, and that MLflow in trouble never costs a training."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from aerofuse.tracking import sending
from aerofuse.tracking.tracker import TrackingParams, track_run
from tests.new_python import check_in_new_python, with_this_source
from tests.tracking.helpers import Arrived, entries_of, find_journals, nothing_waits, wait_until, warnings_of


@pytest.fixture
def arrived(store: Path, params: TrackingParams) -> Arrived:
    return Arrived(f"sqlite:///{store / 'mlflow.db'}", params)


def git(*arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def test_params_metrics_and_artifacts_are_kept(
    store: Path, arrived: Arrived, params: TrackingParams, tmp_path: Path
) -> None:
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

    run = arrived.stage("train_stage_a")
    assert run.info.status == "FINISHED"
    kept = run.data.params
    assert kept["training.task_weights.type"] == "1.0"
    assert (kept["seed"], kept["training.mixed_precision"], kept["many.249"]) == ("0", "no", "249")
    assert arrived.curve("train_stage_a", "loss") == [(1, 2.0), (2, 1.0)]
    assert arrived.artifacts("train_stage_a") == {"curve.txt": "a picture", "plots/confusion.txt": "a table"}
    assert [path.name for path in (store / "mlartifacts").rglob("curve.txt")] == ["curve.txt"]
    assert nothing_waits(store)


def test_numbers_that_are_not_finite_are_accepted(
    store: Path, arrived: Arrived, params: TrackingParams, caplog: pytest.LogCaptureFixture
) -> None:
    with track_run("train", params, repo=store) as tracker:
        tracker.log_metrics({"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1.0}, step=1)
    metrics = arrived.stage("train").data.metrics
    assert math.isnan(metrics["a"])
    assert metrics["b"] > 1e300
    assert metrics["c"] < -1e300
    assert metrics["d"] == 1.0
    assert warnings_of(caplog) == []


def test_a_missing_artifact_is_a_warning_and_no_more(
    store: Path, arrived: Arrived, params: TrackingParams, caplog: pytest.LogCaptureFixture
) -> None:
    with track_run("train", params, repo=store) as tracker:
        tracker.log_artifact(Path("nowhere.png"))
        tracker.log_metrics({"loss": 1.0}, step=1)
    assert "nowhere.png" in warnings_of(caplog)[0]
    assert arrived.stage("train").data.metrics == {"loss": 1.0}


def test_two_stages_of_one_execution_share_a_parent(store: Path, arrived: Arrived, params: TrackingParams) -> None:
    for stage in ("train_stage_a", "train_stage_b"):
        with track_run(stage, params, repo=store):
            wait_until(lambda: stage in arrived.stages())  # noqa: B023  # it is waited for here
            (parent,) = arrived.parents()
            assert parent.info.status == "RUNNING"
    (parent,) = arrived.parents()
    assert parent.info.status == "FINISHED"
    for stage in ("train_stage_a", "train_stage_b"):
        assert arrived.stage(stage).data.tags["mlflow.parentRunId"] == parent.info.run_id


def test_an_experiment_has_a_parent_of_its_own_with_its_name(
    store: Path, arrived: Arrived, params: TrackingParams
) -> None:
    for experiment, baseline in [("fusion-add", "1"), ("fusion-attention", "1"), ("fusion-add", "2")]:
        os.environ |= {"DVC_EXP_NAME": experiment, "DVC_EXP_BASELINE_REV": baseline, "DVC_STAGE": "train"}
        for stage in ("train", "evaluate"):
            with track_run(stage, params, repo=store):
                pass
    assert [run.info.run_name for run in arrived.parents()] == ["fusion-add", "fusion-attention", "fusion-add"]
    for parent in arrived.parents():
        children = [r for r in arrived.runs() if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
        assert [run.info.run_name for run in children] == ["train", "evaluate"]
        assert {run.data.tags["dvc_exp_name"] for run in children} == {parent.info.run_name}
        assert {run.data.tags["dvc_stage"] for run in children} == {"train"}


def test_without_an_experiment_commit_and_params_make_the_execution(
    store: Path, arrived: Arrived, params: TrackingParams
) -> None:
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
    assert [run.info.run_name for run in arrived.parents()] == [commit[:8], f"{commit[:8]}-dirty"]
    tags = [arrived.stage(stage).data.tags for stage in ("one", "two", "three")]
    assert {tag["mlflow.source.git.commit"] for tag in tags} == {commit}
    assert [tag["git_dirty"] for tag in tags] == ["false", "true", "true"]
    assert all(tag["device"] for tag in tags)
    assert tags[1]["mlflow.parentRunId"] == tags[2]["mlflow.parentRunId"] != tags[0]["mlflow.parentRunId"]


@pytest.mark.parametrize(
    ("error", "status"),
    [(RuntimeError("loss is NaN"), "FAILED"), (SystemExit(143), "KILLED"), (KeyboardInterrupt(), "KILLED")],
)
def test_a_training_that_ends_early_says_how(
    store: Path, arrived: Arrived, params: TrackingParams, error: BaseException, status: str
) -> None:
    with pytest.raises(type(error)) as raised, track_run("train", params, repo=store):
        raise error
    assert raised.value is error
    assert arrived.stage("train").info.status == status
    assert arrived.parents()[0].info.status == status


_TRAINING = """
import sys, time
from pathlib import Path
from aerofuse.tracking.tracker import TrackingParams, track_run

params = TrackingParams(enabled=True, experiment=sys.argv[1], system_metrics=False)
with track_run("train", params, repo=Path(sys.argv[2])) as tracker:
    tracker.log_metrics({"loss": 1.0}, step=1)
    time.sleep(600)
"""


@pytest.mark.slow
def test_a_run_that_was_killed_without_a_word_is_ended_by_the_next(
    store: Path, arrived: Arrived, params: TrackingParams
) -> None:
    with track_run("other", params, repo=store):
        training = subprocess.Popen(
            [sys.executable, "-c", _TRAINING, params.experiment, str(store)], env=with_this_source()
        )
        try:
            wait_until(lambda: "train" in arrived.stages() and arrived.curve("train", "loss") == [(1, 1.0)])
        finally:
            training.kill()
            training.wait()
        assert arrived.stage("train").info.status == "RUNNING"
        with track_run("next", params, repo=store):
            wait_until(lambda: "next" in arrived.stages())
            assert arrived.stage("train").info.status == "KILLED"
            assert arrived.stage("other").info.status == "RUNNING"
    assert nothing_waits(store)


def test_the_store_is_in_the_main_repository(
    store: Path, arrived: Arrived, params: TrackingParams, tmp_path: Path
) -> None:
    os.environ["DVC_ROOT"] = str(store)  # as in the temporary copy that an experiment runs in
    Path("note.txt").write_text("kept")
    with track_run("train", params) as tracker:
        tracker.log_artifact(Path("note.txt"))
    assert arrived.stage("train").info.status == "FINISHED"
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_the_users_own_settings_are_left_alone(store: Path, params: TrackingParams) -> None:
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "4"
    with track_run("train", params, repo=store):
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "4"
        assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_system_metrics_are_logged_on_request(store: Path, arrived: Arrived, params: TrackingParams) -> None:
    os.environ["MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"] = "0.2"
    with track_run("train", params.model_copy(update={"system_metrics": True}), repo=store):
        wait_until(lambda: "train" in arrived.stages() and arrived.stage("train").data.metrics != {})
    assert "system/cpu_utilization_percentage" in arrived.stage("train").data.metrics
    assert "MachineMonitor" not in {thread.name for thread in threading.enumerate()}


def test_disabled_tracking_touches_nothing(tmp_path: Path, params: TrackingParams) -> None:
    with track_run("train", params.model_copy(update={"enabled": False}), repo=tmp_path) as tracker:
        tracker.log_params({"seed": 0})
        tracker.log_metrics({"loss": 1.0}, step=1)
        tracker.log_artifact(Path("nowhere.png"))
    assert list(tmp_path.iterdir()) == []


def test_importing_the_module_does_not_import_mlflow() -> None:
    check_in_new_python("import aerofuse.tracking.tracker, sys; assert 'mlflow' not in sys.modules")


def test_without_mlflow_one_warning_names_the_remedy(
    tmp_path: Path, params: TrackingParams, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with track_run("train", params, repo=tmp_path) as tracker:
        tracker.log_metrics({"loss": 1.0}, step=1)
    (warning,) = warnings_of(caplog)
    assert "pip install mlflow" in warning


def test_an_unreachable_server_costs_a_warning(
    tmp_path: Path, params: TrackingParams, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as nobody:  # a port of its own, on which nothing listens
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        os.environ["MLFLOW_TRACKING_URI"] = f"http://someone:secret@127.0.0.1:{port}"
        with track_run("train", params, repo=tmp_path) as tracker:
            tracker.log_metrics({"loss": 1.0}, step=1)
    (warning,) = warnings_of(caplog)
    assert f"127.0.0.1:{port}" in warning
    assert "secret" not in warning
    assert len(find_journals(tmp_path)) == 1


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
    assert len(find_journals(tmp_path)) == 1


class _RefusingServer(BaseHTTPRequestHandler):
    """Answers everything with one status, and no word of MLflow's."""

    status = 200

    def do_GET(self) -> None:
        body = b"<html>no</html>"
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, format: str, *arguments: object) -> None:
        """Be silent: the test looks at what is printed."""


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, "this user or password is not admitted"),
        (403, "this user or password is not admitted"),
        (404, "404"),
        (429, "429"),
        (500, "500"),
        (200, "JSON"),
    ],
)
def test_a_server_that_refuses_everything_costs_one_warning(
    status: int,
    reason: str,
    tmp_path: Path,
    params: TrackingParams,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_RefusingServer, "status", status)
    monkeypatch.setattr(sending, "RETRY_S", 0.05)
    with HTTPServer(("127.0.0.1", 0), _RefusingServer) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        os.environ["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{server.server_port}"
        with track_run("train", params, repo=tmp_path) as tracker:
            for epoch in range(1, 4):
                tracker.log_metrics({"loss": 1.0}, step=epoch)
            wait_until(lambda: warnings_of(caplog) != [])
        server.shutdown()
        thread.join()
    (warning,) = warnings_of(caplog)
    assert reason in warning
    (folder,) = find_journals(tmp_path)
    assert len(entries_of(folder)[0]) == 4
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "\x1b" not in printed.err


_ONE_OF_THREE = """
import sys, time
from pathlib import Path
import mlflow
from aerofuse.tracking.tracker import TrackingParams, track_run

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
    assert [process.wait(timeout=300) for process in processes] == [0, 0, 0]
    found = Arrived(
        f"sqlite:///{tmp_path / 'mlflow.db'}", TrackingParams(enabled=True, experiment="e", system_metrics=False)
    )
    (parent,) = found.parents()
    for stage in stages:
        run = found.stage(stage)
        assert (run.info.status, run.data.metrics) == ("FINISHED", {"loss": 1.0})
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
