from __future__ import annotations

import sqlite3
import sys
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from aerofuse.tuning.study import ROW, StudySpec, connect, join_study, latest_trials, start_study

GRID = StudySpec({"fusion_method": "concat,add", "seed": "0,1"}, "0123abcd")
SEARCH = StudySpec({"rate": "0.0..1.0"}, "0123abcd", trials=5, prune=True)


def _connect(folder: Path) -> RDBStorage:
    return connect(f"sqlite:///{folder / 'new' / 'studies.db'}", 60, create=True)


def _content(storage: RDBStorage) -> list[tuple[str, int]]:
    return [(name, len(optuna.load_study(study_name=name, storage=storage).trials)) for name in _names(storage)]


def _names(storage: RDBStorage) -> list[str]:
    return optuna.get_all_study_names(storage)


def test_a_grid_waits_with_every_combination_once(tmp_path: Path) -> None:
    study = start_study(_connect(tmp_path), "grid", GRID, "a commit")
    trials = study.get_trials(states=[TrialState.WAITING])
    assert [trial.user_attrs[ROW] for trial in trials] == [0, 1, 2, 3]
    drawn = [{setting.name: setting.draw(study.ask()) for setting in GRID.parsed[:1]} for _ in trials]
    assert [values["fusion_method"] for values in drawn] == ["concat", "concat", "add", "add"]
    names = {GRID.experiment_name(values) for values in GRID.rows()}
    assert len(names) == 4
    assert all(name.startswith("tune-0123abcd-") for name in names)


def test_a_search_draws_when_a_row_has_its_turn(tmp_path: Path) -> None:
    study = start_study(_connect(tmp_path), "search", SEARCH, "a commit")
    study = join_study(_connect(tmp_path), "search", "0123abcd")
    assert isinstance(study.pruner, optuna.pruners.MedianPruner)
    (setting,) = SEARCH.parsed
    values = {setting.draw(study.ask()) for _ in range(5)}
    assert len(values) == 5
    assert all(0 <= float(value) <= 1 for value in values)


def test_the_same_command_goes_on_and_runs_again_what_failed(tmp_path: Path) -> None:
    storage = _connect(tmp_path)
    study = start_study(storage, "grid", GRID, "a commit")
    first, second = study.ask(), study.ask()
    for trial in (first, second):
        for setting in GRID.parsed:
            setting.draw(trial)
    study.tell(first, 0.5)
    study.tell(second, state=TrialState.FAIL)
    again = latest_trials(start_study(storage, "grid", GRID, "a commit"))
    assert [trial.state.name for trial in again.values()] == ["COMPLETE", "WAITING", "WAITING", "WAITING"]
    assert len(study.trials) == 5
    longer = start_study(storage, "search", SEARCH, "a commit")
    start_study(storage, "search", replace(SEARCH, trials=7), "a commit")
    assert len(longer.trials) == 7
    assert SEARCH.default_name() == replace(SEARCH, trials=7).default_name() != GRID.default_name()


@pytest.mark.parametrize(
    "other",
    [
        replace(GRID, settings={"seed": "0,1"}),
        replace(GRID, fingerprint="ffffffff"),
        replace(GRID, model="multi_task"),
        replace(GRID, trials=4),
    ],
)
def test_two_studies_of_one_name_are_refused_and_nothing_is_written(other: StudySpec, tmp_path: Path) -> None:
    storage = _connect(tmp_path)
    start_study(storage, "mine", GRID, "a commit")
    with pytest.raises(ValueError, match="there is another study mine, of a grid over fusion_method=concat,add"):
        start_study(storage, "mine", other, "a commit")
    assert _content(storage) == [("mine", 4)]


def test_a_study_of_another_program_is_refused(tmp_path: Path) -> None:
    storage = _connect(tmp_path)
    optuna.create_study(storage=storage, study_name="theirs")
    with pytest.raises(ValueError, match="theirs is not one of `aerofuse tune`"):
        start_study(storage, "theirs", GRID, "a commit")
    assert _content(storage) == [("theirs", 0)]


def test_a_worker_finds_its_study_or_is_told_which_there_are(tmp_path: Path) -> None:
    storage = _connect(tmp_path)
    start_study(storage, "one", GRID, "a commit")
    assert join_study(storage, None, "0123abcd").study_name == "one"
    start_study(storage, "two", SEARCH, "a commit")
    with pytest.raises(ValueError, match="say which study with --name; the storage has one, two"):
        join_study(storage, None, "0123abcd")
    with pytest.raises(ValueError, match="there is no study three; the storage has one, two"):
        join_study(storage, "three", "0123abcd")


def test_a_worker_with_another_content_is_refused(tmp_path: Path) -> None:
    storage = _connect(tmp_path)
    start_study(storage, "one", GRID, "0011223344556677")
    with pytest.raises(ValueError, match=r"\(fingerprint 0123abcd, here ffffffff\); check out 0011223344 "):
        join_study(storage, "one", "ffffffff")


def test_a_grid_has_no_ranges() -> None:
    with pytest.raises(ValueError, match=r"rate is a range, .* --trials"):
        replace(SEARCH, trials=None).rows()


def test_a_worker_makes_no_storage(tmp_path: Path) -> None:
    path = tmp_path / "studies.db"
    with pytest.raises(ValueError, match=r"there is no storage .*studies\.db"):
        connect(f"sqlite:///{path}", 60, create=False)
    assert not path.exists()


def test_the_storage_of_another_program_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
    for create in (True, False):
        with pytest.raises(ValueError, match=r"has tables of another program \(alembic_version\)"):
            connect(f"sqlite:///{path}", 60, create=create)
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT count(*) FROM sqlite_master").fetchone() == (1,)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://me:secret@127.0.0.1:9/tune", "Connection refused"),
        ("nonsense", "cannot be used"),
        ("sqlite:////dev/null/studies.db", "File exists"),
    ],
)
def test_a_storage_that_is_gone_is_named_without_its_password(url: str, message: str) -> None:
    with pytest.raises((ValueError, OSError), match=message) as refused:
        connect(url, 60, create=True)
    assert "secret" not in str(refused.value)


def test_a_driver_that_is_missing_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", None)  # as if it were not installed
    with pytest.raises(ValueError, match=r"pip install 'aerofuse\[postgresql\]'"):
        connect("postgresql://me@127.0.0.1:9/tune", 60, create=True)
