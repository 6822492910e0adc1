"""What waits for MLflow in its folder: whose it is, what can be read of it, and a disk that takes no more."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from aerofuse.tracking import sending
from aerofuse.tracking.spool import find_spools, read_run
from aerofuse.tracking.tracker import TrackingParams, track_run
from tests.tracking.helpers import Arrived, log_epochs, losses, nothing_waits, run_another, wait_until, warnings_of
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
    (folder,) = find_spools(Path())
    kept = read_run(folder)
    assert kept is not None
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
    (folder,) = find_spools(Path())
    assert "-a-" in folder.name


@pytest.mark.parametrize(("line", "stays"), [('{"of": "a later version"}\n', True), ('{"key": "2026', False)])
def test_a_first_line_that_cannot_be_read(
    line: str, stays: bool, server: TroubledMlflow, arrived: Arrived, params: TrackingParams
) -> None:
    """What another version may read is left to it; half a line says that the process was killed at once."""
    journal = Path(".resume/mlflow/odd/journal.jsonl")
    journal.parent.mkdir(parents=True)
    journal.write_text(line)
    run_another(params)
    assert arrived.stages() == ["next"]
    assert journal.exists() == stays
    assert nothing_waits(Path()) != stays


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
        (folder,) = find_spools(Path())
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
