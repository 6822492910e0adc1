from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from aerofuse.tuning.page import read_outcomes, study_page, write_report
from aerofuse.tuning.study import EXPERIMENT, FOUND, LOG, NOT_PUSHED, StudySpec, connect, start_study

SPEC = StudySpec({"fusion_method": "concat,add", "seed": "0,1"}, "0123abcd")


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    """A grid of four: two done for concat with 0.80 and 0.90, of add one done and one failed."""
    study = start_study(connect(f"sqlite:///{tmp_path / 'studies.db'}", 60, create=True), "mine", SPEC, "a commit")
    for number, score in enumerate((0.80, 0.90, 0.84, None)):
        trial = study.ask()
        for setting in SPEC.parsed:
            setting.draw(trial)
        trial.set_user_attr(EXPERIMENT, f"tune-{number}")
        if score is None:
            trial.set_user_attr(LOG, ["line 1", "out of luck"])
            study.tell(trial, state=TrialState.FAIL)
        else:
            trial.set_user_attr(FOUND, {"type_top1": score - 0.1})
            study.tell(trial, score)
    return study


def test_trials_are_ranked_and_means_over_seeds_have_deviations(study: optuna.Study) -> None:
    """0.80 and 0.90: mean 0.85, sample standard deviation 0.1 / sqrt(2)."""
    outcomes = read_outcomes(study)
    assert [outcome.experiment for outcome in outcomes] == ["tune-1", "tune-2", "tune-0", "tune-3"]
    lines = study_page(study, outcomes, []).splitlines()
    assert "3 of 4 trials are done" in "\n".join(lines)
    rows = [[part.strip() for part in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    assert ["concat", "2", "0.8500 ± 0.0707", "75.00 % ± 7.07 %"] in [row[:4] for row in rows]
    assert ["add", "1", "0.8400", "74.00 %"] in [row[:4] for row in rows]
    assert ["add", "1", "fail", "-", "-"] in [row[:5] for row in rows]


def test_what_failed_has_its_last_words_and_what_to_do(study: optuna.Study) -> None:
    page = study_page(study, read_outcomes(study), [])
    assert "**tune-3 failed**; `.resume/tune/logs/tune-3.log`" in page
    assert "```\nline 1\nout of luck\n```" in page


def test_pictures_and_json_are_written_and_what_is_open_is_told(study: optuna.Study, tmp_path: Path) -> None:
    page, is_done = write_report(study, tmp_path / "reports")
    assert not is_done
    assert (tmp_path / "reports/tune.md").read_text(encoding="utf-8") == page
    content = json.loads((tmp_path / "reports/tune.json").read_text(encoding="utf-8"))
    assert (content["study"], content["settings"], len(content["outcomes"])) == ("mine", SPEC.settings, 4)
    for name in ("history", "importances", "slice"):
        assert f"](tune/{name}.png)" in page
        assert (tmp_path / f"reports/tune/{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "epochs.png" not in page


def test_a_result_that_was_not_pushed_is_not_done(study: optuna.Study, tmp_path: Path) -> None:
    study.enqueue_trial({"fusion_method": "add", "seed": "1"}, {"row": 3})
    trial = study.ask()
    for setting in SPEC.parsed:
        setting.draw(trial)
    trial.set_user_attr(EXPERIMENT, "tune-3")
    trial.set_user_attr(FOUND, {})
    trial.set_user_attr(NOT_PUSHED, "no route")
    study.tell(trial, 0.7)
    page, is_done = write_report(study, tmp_path)
    assert "4 of 4 trials are done" in page
    assert "**tune-3 is not pushed**: no route." in page
    assert not is_done


def test_a_page_without_any_result_has_no_pictures(tmp_path: Path) -> None:
    storage = connect(f"sqlite:///{tmp_path / 'studies.db'}", 60, create=True)
    page, is_done = write_report(start_study(storage, "mine", SPEC, "a commit"), tmp_path / "reports")
    assert "0 of 4 trials are done" in page
    assert ".png" not in page
    assert not is_done
