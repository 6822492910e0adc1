"""MLflow in every kind of trouble: training goes on, and in the end MLflow has all of it, once."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aerofuse.tracking import sending, tracker
from aerofuse.tracking import store as store_module
from aerofuse.tracking.sending import send_older
from aerofuse.tracking.tracker import TrackingParams, track_run
from tests.new_python import with_this_source
from tests.tracking.helpers import (
    Arrived,
    entries_of,
    find_journals,
    log_epochs,
    losses,
    nothing_waits,
    run_another,
    wait_until,
    warnings_of,
)
from tests.tracking.trouble import Hanging, Trouble, TroubledMlflow, broken, gone, refusing


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "curve.txt"
    path.write_text("a picture")
    return path


def no_thread_sends() -> bool:
    return "MLflow" not in {thread.name for thread in threading.enumerate()}


def test_gone_at_the_start(
    server: TroubledMlflow, arrived: Arrived, params: TrackingParams, picture: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = picture.parent / "plots"
    folder.mkdir()
    (folder / "confusion.txt").write_text("a table")
    server.before = gone
    before_ms = time.time_ns() // 1_000_000
    with track_run("train", params) as run:
        run.log_params({"seed": 0, "training": {"epochs": 30}, "many": {str(i): i for i in range(250)}})
        log_epochs(run, range(1, 4))
        run.log_artifact(picture)
        run.log_artifact(folder)
    after_ms = time.time_ns() // 1_000_000
    picture.write_text("changed since")
    (warning,) = warnings_of(caplog)
    assert "aerofuse mlflow send" in warning
    assert "secret" not in caplog.text
    assert arrived.runs() == []

    time.sleep(0.002)  # times are in milliseconds
    server.before = None
    run_another(params)
    assert arrived.stages() == ["train", "next"]
    found = arrived.stage("train")
    (parent,) = arrived.parents()
    assert found.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert found.data.tags["mlflow.source.name"] == "stages/train.py"
    assert found.data.params == {"seed": "0", "training.epochs": "30"} | {f"many.{i}": str(i) for i in range(250)}
    assert arrived.curve("train", "loss") == losses(range(1, 4))
    assert all(before_ms <= point.timestamp <= after_ms for point in arrived.points("train", "loss"))
    assert arrived.artifacts("train") == {"curve.txt": "a picture", "plots/confusion.txt": "a table"}
    assert (found.info.status, parent.info.status) == ("FINISHED", "FINISHED")
    assert before_ms <= found.info.start_time <= found.info.end_time <= after_ms
    assert nothing_waits(Path())


def test_gone_in_the_middle(server: TroubledMlflow, arrived: Arrived, params: TrackingParams, picture: Path) -> None:
    with track_run("train", params) as run:
        run.log_params({"seed": 0})
        log_epochs(run, range(1, 3))
        wait_until(lambda: arrived.stages() == ["train"] and arrived.curve("train", "loss") == losses(range(1, 3)))
        server.before = gone
        log_epochs(run, range(3, 6))
        run.log_artifact(picture)
    assert arrived.curve("train", "loss") == losses(range(1, 3))
    assert arrived.stage("train").info.status == "RUNNING"
    server.before = None
    run_another(params)
    assert arrived.curve("train", "loss") == losses(range(1, 6))
    assert arrived.artifacts("train") == {"curve.txt": "a picture"}
    assert arrived.stage("train").info.status == "FINISHED"
    assert nothing_waits(Path())


def test_it_comes_back_within_the_run(
    server: TroubledMlflow, arrived: Arrived, params: TrackingParams, caplog: pytest.LogCaptureFixture
) -> None:
    server.before = gone
    with track_run("train", params) as run:
        log_epochs(run, range(1, 4))
        wait_until(lambda: len(server.calls) > 6)  # it is asked again and again
        server.before = None
        wait_until(lambda: arrived.stages() == ["train"] and arrived.curve("train", "loss") == losses(range(1, 4)))
        assert arrived.parents()[0].info.status == "RUNNING"
    assert arrived.stage("train").info.status == "FINISHED"
    assert len(warnings_of(caplog)) == 1
    assert nothing_waits(Path())


def test_at_the_end_it_is_asked_once_more(
    server: TroubledMlflow, arrived: Arrived, params: TrackingParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "RETRY_S", 3600.0)
    with track_run("train", params) as run:
        server.before = gone
        log_epochs(run, range(1, 3))
        wait_until(lambda: server.calls.count("search_experiments") > 0)
        server.before = None
    assert arrived.curve("train", "loss") == losses(range(1, 3))
    assert arrived.stage("train").info.status == "FINISHED"
    assert nothing_waits(Path())


@pytest.mark.parametrize(
    ("error", "patience", "status"),
    [(None, "_FINISH_S", "FINISHED"), (KeyboardInterrupt(), "_FINISH_EARLY_S", "KILLED")],
)
def test_training_does_not_wait_for_an_answer_that_never_comes(
    error: KeyboardInterrupt | None,
    patience: str,
    status: str,
    server: TroubledMlflow,
    arrived: Arrived,
    params: TrackingParams,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """While it hangs for two minutes, 20 epochs of 100 metrics are logged and the run ends."""
    for name in ("_FINISH_S", "_FINISH_EARLY_S"):
        monkeypatch.setattr(tracker, name, 0.1 if name == patience else 3600.0)
    hanging = server.before = Hanging()
    with contextlib.suppress(KeyboardInterrupt), track_run("train", params) as run:
        for epoch in range(20):
            run.log_metrics({f"metric{number}": float(epoch) for number in range(100)}, step=epoch)
        if error is not None:
            raise error
    assert not hanging.release.is_set()
    (warning,) = warnings_of(caplog)
    assert "has not taken all" in warning
    assert len(server.calls) == 1
    hanging.release.set()
    wait_until(no_thread_sends)
    server.before = None
    monkeypatch.setattr(tracker, "_FINISH_S", 60.0)
    server.calls.clear()
    run_another(params)
    for number in (0, 99):
        assert arrived.curve("train", f"metric{number}") == [(epoch, float(epoch)) for epoch in range(20)]
    assert server.calls.count("log_batch") == 2  # 1000 points at a time
    assert arrived.stage("train").info.status == status


@pytest.mark.parametrize("trouble", [refusing, broken])
def test_what_it_does_not_take_is_kept_and_the_rest_goes_on(
    trouble: Callable[[str], Trouble],
    server: TroubledMlflow,
    arrived: Arrived,
    params: TrackingParams,
    picture: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It gives a reason, or fails each time; other calls work."""
    server.before = trouble("log_artifact")
    with track_run("train", params) as run:
        log_epochs(run, range(1, 3))
        run.log_artifact(picture)
        run.log_artifact(picture)
        log_epochs(run, range(3, 5))
    assert arrived.curve("train", "loss") == losses(range(1, 5))
    assert arrived.stage("train").info.status == "FINISHED"
    assert "which is kept" in warnings_of(caplog)[0]
    assert len(warnings_of(caplog)) == 2  # and at the end
    (folder,) = find_journals(Path())
    waiting, refused = entries_of(folder)
    assert (waiting, [entry.kind for entry in refused]) == ([], ["artifact", "artifact"])
    assert all("log_artifact" in str(entry.reason) or "internal error" in str(entry.reason) for entry in refused)
    run_another(params, "second")  # tries it again, in vain
    assert len(entries_of(folder)[1]) == 2
    server.before = None
    run_another(params, "third")
    assert arrived.artifacts("train") == {"curve.txt": "a picture"}
    assert arrived.stage("train").info.status == "FINISHED"
    assert nothing_waits(Path())


def test_gone_while_what_it_did_not_take_is_tried_again(
    server: TroubledMlflow, arrived: Arrived, params: TrackingParams, picture: Path
) -> None:
    second = picture.with_name("second.txt")
    second.write_text("another picture")
    server.before = refusing("log_artifact")
    with track_run("train", params) as run:
        run.log_artifact(picture)
        run.log_artifact(second)
    tried: list[str] = []

    def gone_after_one(method: str, arguments: str) -> None:
        if tried:
            gone(method, arguments)
        if method == "log_artifact":
            tried.append(arguments)

    server.before = gone_after_one
    run_another(params, "second")
    (folder,) = (each for each in find_journals(Path()) if entries_of(each)[1])
    (refused,) = entries_of(folder)[1]
    assert "second.txt" in refused.path
    server.before = None
    run_another(params, "third")
    assert arrived.artifacts("train") == {"curve.txt": "a picture", "second.txt": "another picture"}
    assert nothing_waits(Path())


def test_one_refused_point_among_many_that_waited(
    server: TroubledMlflow, arrived: Arrived, params: TrackingParams
) -> None:
    server.before = gone
    with track_run("train", params) as run:
        log_epochs(run, range(1, 4))
        run.log_metrics({"odd": 1.0}, step=4)
        log_epochs(run, range(5, 7))
    server.before = refusing("log_batch", "odd")
    run_another(params)
    assert arrived.curve("train", "loss") == losses(range(1, 4)) + losses(range(5, 7))
    (folder,) = find_journals(Path())
    assert len(entries_of(folder)[1]) == 1


_KILLED = """
import os, signal, sys
from aerofuse.tracking import store
from aerofuse.tracking.tracker import TrackingParams, track_run

def away(uri):
    raise ConnectionError

store.make_client = away
with track_run("train", TrackingParams(enabled=True, experiment=sys.argv[1], system_metrics=False)) as tracker:
    for epoch in range(1, 4):
        tracker.log_metrics({"loss": 1 / epoch}, step=epoch)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_killed_without_a_word_while_it_was_gone(
    server: TroubledMlflow, arrived: Arrived, params: TrackingParams
) -> None:
    killed = subprocess.run([sys.executable, "-c", _KILLED, params.experiment], env=with_this_source())
    assert killed.returncode == -signal.SIGKILL
    (folder,) = find_journals(Path())
    with (folder / "journal.jsonl").open("a") as journal:
        journal.write('\n{"kind": "metrics", "points": [["loss", 0.2')
    last_ms = (folder / "journal.jsonl").stat().st_mtime_ns // 1_000_000
    run_another(params)
    assert arrived.curve("train", "loss") == losses(range(1, 4))
    info = arrived.stage("train").info
    assert (info.status, info.end_time) == ("KILLED", last_ms)
    assert nothing_waits(Path())


class _Crash(BaseException):
    """The process is gone."""


def send_what_waits() -> None:
    uri = os.environ["MLFLOW_TRACKING_URI"]
    send_older(Path(), uri, store_module.Store(uri, Path()))


def test_a_crash_after_any_answer_loses_and_doubles_nothing(
    server: TroubledMlflow, arrived: Arrived, params: TrackingParams, picture: Path
) -> None:
    server.before = gone
    with track_run("train", params) as run:
        run.log_params({"seed": 0})
        log_epochs(run, range(1, 3))
        run.log_artifact(picture)
        run.log_params({"more": 1})
    server.before = None
    server.calls.clear()
    crashes = 0
    while find_journals(Path()):
        answers = itertools.count()

        def crash(method: str, arguments: str, answers: Iterator[int] = answers, last: int = crashes) -> None:
            if next(answers) == last:
                raise _Crash

        server.after = crash
        with contextlib.suppress(_Crash):
            send_what_waits()
        crashes += 1
        assert crashes < 40
    assert crashes > 5
    assert len(arrived.parents()) == 1
    assert arrived.stage("train").data.params == {"seed": "0", "more": "1"}
    assert len(arrived.points("train", "loss")) == len(arrived.points("train", "accuracy")) == 2
    assert arrived.artifacts("train") == {"curve.txt": "a picture"}
    assert arrived.stage("train").info.status == "FINISHED"
    # Three batches and an artifact; each crash repeats one call at most.
    assert server.calls.count("log_batch") + server.calls.count("log_artifact") <= 4 + crashes


@pytest.mark.parametrize("what", ["create_experiment", "create_run"])
def test_a_creation_that_was_not_answered_is_not_repeated(
    what: str, server: TroubledMlflow, arrived: Arrived, params: TrackingParams
) -> None:
    def lose_the_answer(method: str, arguments: str) -> None:
        if method == what:
            gone(method, arguments)

    server.after = lose_the_answer
    with track_run("train", params) as run:
        log_epochs(run, range(1, 3))
        wait_until(lambda: server.calls.count("log_batch") > 0)
    assert arrived.curve("train", "loss") == losses(range(1, 3))
    assert arrived.stages() == ["train"]
    assert len(arrived.parents()) == 1
    assert arrived.stage("train").info.status == "FINISHED"


def test_a_later_stage_says_how_the_execution_ended(
    server: TroubledMlflow, arrived: Arrived, params: TrackingParams
) -> None:
    server.before = gone
    with contextlib.suppress(RuntimeError), track_run("a", params):
        raise RuntimeError
    server.before = None
    time.sleep(0.002)  # times are in milliseconds
    with track_run("b", params):
        wait_until(lambda: arrived.stages() == ["a", "b"])
        assert arrived.stage("a").info.status == "FAILED"
        assert arrived.parents()[0].info.status == "RUNNING"
    assert arrived.parents()[0].info.status == "FINISHED"


def test_samples_of_the_machine_are_kept_too(server: TroubledMlflow, arrived: Arrived, params: TrackingParams) -> None:
    os.environ["MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL"] = "0.05"
    server.before = gone
    with track_run("train", params.model_copy(update={"system_metrics": True})):
        wait_until(lambda: len(entries_of(find_journals(Path())[0])[0]) >= 5)
        server.before = None
    steps = [step for step, _ in arrived.curve("train", "system/cpu_utilization_percentage")]
    assert steps == list(range(len(steps)))
    assert len(steps) >= 5
