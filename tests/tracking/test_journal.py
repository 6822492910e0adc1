"""What waits for MLflow in its folder: whose it is, what can be read of it, and a disk that takes no more."""

from __future__ import annotations

import json
import math
import resource
from pathlib import Path

import pytest

from aerofuse.tracking import sending
from aerofuse.tracking.journal import read_journal
from aerofuse.tracking.tracker import TrackingParams, track_run
from tests.tracking.helpers import (
    Arrived,
    find_journals,
    log_epochs,
    losses,
    nothing_waits,
    run_another,
    wait_until,
    warnings_of,
)
from tests.tracking.trouble import TroubledMlflow, broken, gone


def test_what_another_process_holds_is_left_to_it(
    server: TroubledMlflow, arrived: Arrived, params: TrackingParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "RETRY_S", 3600.0)
    server.before = gone
    with track_run("train", params) as run:
        log_epochs(run, range(1, 3))
        wait_until(lambda: server.calls.count("search_experiments") > 0)
        server.before = None
        run_another(params)
        assert arrived.stages() == ["next"]
    assert arrived.curve("train", "loss") == losses(range(1, 3))


def test_what_is_for_another_server_stays(
    server: TroubledMlflow, arrived: Arrived, params: TrackingParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.before = gone
    run_another(params, "train")
    server.before = None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere.invalid")
    run_another(params)
    assert arrived.stages() == ["next"]
    (folder,) = find_journals(Path())
    kept, _ = read_journal(folder)
    assert kept.uri == "http://***@mlflow.invalid"
    assert "secret" not in (folder / "journal.jsonl").read_text()


def test_a_run_that_it_cannot_take_does_not_keep_back_others(
    server: TroubledMlflow, arrived: Arrived, params: TrackingParams
) -> None:
    server.before = gone
    for stage in ("a", "b"):
        run_another(params, stage)
    server.before = broken("search_runs", "-a-")
    run_another(params)
    assert arrived.stages() == ["b", "next"]
    (folder,) = find_journals(Path())
    assert "-a-" in folder.name


@pytest.mark.parametrize("line", ['{"of": "a later version"}\n', '{"key": "2026'])
def test_a_first_line_that_cannot_be_read_is_left_and_named(
    line: str, server: TroubledMlflow, arrived: Arrived, params: TrackingParams, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Path(".resume/mlflow/odd/journal.jsonl")
    journal.parent.mkdir(parents=True)
    journal.write_text(line)
    run_another(params)
    assert arrived.stages() == ["next"]
    assert journal.read_text() == line
    assert any("odd is left as it is; remove it to give it up" in warning for warning in warnings_of(caplog))


def test_a_journal_of_the_version_before_is_sent_whole(
    server: TroubledMlflow, arrived: Arrived, params: TrackingParams
) -> None:
    """It says in files of its own what was sent and what was refused; all of that stands in the journal, too."""
    folder = Path(".resume/mlflow/20261001T120000000000-train-ab12cd")
    (folder / "artifacts/0001").mkdir(parents=True)
    (folder / "artifacts/0001/curve.txt").write_text("a picture")
    run = {
        "key": folder.name,
        "uri": "http://***@mlflow.invalid",
        "experiment": params.experiment,
        "artifacts": None,
        "stage": "train",
        "dvc_stage": "train",
        "tags": {"git_dirty": "false", "device": "cpu"},
        "start_ms": 1_790_000_000_000,
        "execution": "0123456789abcdef",
        "execution_name": "no commit",
    }
    refused = {"kind": "artifact", "path": "artifacts/0001/curve.txt"}
    lines = [
        run,
        {"kind": "params", "values": {"seed": "0"}},
        {"kind": "metrics", "points": [["loss", 1.0, 1_790_000_001_000, 1], ["odd", math.nan, 1_790_000_001_000, 1]]},
        refused,
        {"kind": "metrics", "points": [["loss", 0.5, 1_790_000_002_000, 2]]},
        {"kind": "end", "status": "FAILED", "time_ms": 1_790_000_003_000},
    ]
    (folder / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "sent").write_text("900")
    (folder / "refused.jsonl").write_text(json.dumps({**refused, "reason": "no room"}) + "\n")
    run_another(params)
    found = arrived.stage("train")
    assert (found.info.status, found.info.end_time) == ("FAILED", 1_790_000_003_000)
    assert found.data.params == {"seed": "0"}
    assert arrived.curve("train", "loss") == losses(range(1, 3))
    assert math.isnan(found.data.metrics["odd"])
    assert arrived.artifacts("train") == {"curve.txt": "a picture"}
    assert nothing_waits(Path())


def test_a_folder_that_cannot_be_written_costs_a_warning(
    server: TroubledMlflow, params: TrackingParams, caplog: pytest.LogCaptureFixture
) -> None:
    Path(".resume").write_text("in the way")
    with track_run("train", params) as run:
        log_epochs(run, range(1, 3))
    (warning,) = warnings_of(caplog)
    assert "no MLflow run" in warning


def test_half_a_line_on_a_full_disk_spoils_no_other(
    server: TroubledMlflow, arrived: Arrived, params: TrackingParams, caplog: pytest.LogCaptureFixture
) -> None:
    server.before = gone
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    with track_run("train", params) as run:
        log_epochs(run, range(1, 3))
        (folder,) = find_journals(Path())
        full = (folder / "journal.jsonl").stat().st_size + 20
        resource.setrlimit(resource.RLIMIT_FSIZE, (full, unlimited[1]))
        try:
            log_epochs(run, range(3, 4))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        assert (folder / "journal.jsonl").stat().st_size == full
        log_epochs(run, range(4, 6))
    assert sum("cannot be kept" in warning for warning in warnings_of(caplog)) == 1
    server.before = None
    run_another(params)
    assert arrived.curve("train", "loss") == losses(range(1, 3)) + losses(range(4, 6))
