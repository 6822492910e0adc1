"""`aerofuse tune` on one machine, over a pipeline of two stages: interrupted, going on, failing, done, pruned."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from statistics import median

import optuna
import pytest

from aerofuse.tuning.study import EXPERIMENT
from tests.pipeline import ENVIRONMENT, git, run_dvc
from tests.tuning.small_pipeline import Tuning, make_repository, wait_until

pytestmark = pytest.mark.slow

GRID = ("fusion_method=add,concat", "seed=0")
Run = tuple[int, str]


@pytest.fixture(scope="module")
def tuning(tmp_path_factory: pytest.TempPathFactory) -> Tuning:
    folder = tmp_path_factory.mktemp("tune")
    made = Tuning(make_repository(folder / "repository"), folder / "test")
    made.test_folder.mkdir()
    # What is not committed belongs to the experiments, too.
    with (made.repository / "stages/train.py").open("a", encoding="utf-8") as stage:
        stage.write("# edited\n")
    (made.test_folder / "broken").touch()
    return made


@pytest.fixture(scope="module")
def interrupted(tuning: Tuning) -> Run:
    """Ctrl-C while the first experiment runs."""
    (tuning.test_folder / "hold-add-0").touch()
    process = tuning.start(*GRID)
    wait_until(lambda: tuning.lines("runs"))
    os.killpg(process.pid, signal.SIGINT)
    output = process.communicate(timeout=120)[0]
    return process.returncode, output


@pytest.fixture(scope="module")
def failed(interrupted: Run, tuning: Tuning) -> Run:
    (tuning.test_folder / "hold-add-0").unlink()
    status, output = tuning.run(*GRID)
    shutil.copy(tuning.repository / "reports/tune.md", tuning.test_folder / "failed.md")
    shutil.copy(tuning.repository / "reports/tune.json", tuning.test_folder / "failed.json")
    return status, output


@pytest.fixture(scope="module")
def mended(failed: Run, tuning: Tuning) -> Run:
    (tuning.test_folder / "broken").unlink()
    return tuning.run(*GRID)


def test_ctrl_c_ends_the_workers_and_says_what_goes_on(interrupted: Run, tuning: Tuning) -> None:
    status, output = interrupted
    assert status == 130
    assert "the same command goes on with tune-" in output
    assert "Traceback" not in output
    assert not list((tuning.repository / ".resume/tune/workers").iterdir()), "the copy is removed"
    assert git(tuning.repository, "status", "--short").split() == ["M", "stages/train.py"], "the edit, and nothing else"


def test_a_failure_is_the_exit_status_and_stops_no_other_experiment(failed: Run, tuning: Tuning) -> None:
    status, output = failed
    assert status == 1
    page = (tuning.test_folder / "failed.md").read_text(encoding="utf-8")
    assert page in output
    assert "1 of 2 trials are done" in page
    assert "train: a planted fault" in page
    log = page.partition("`.resume")[2].partition("`")[0]
    assert "train: a planted fault" in (tuning.repository / f".resume{log}").read_text(encoding="utf-8")
    assert [line[0] for line in tuning.lines("runs")[:3]] == ["add-0", "concat-0", "add-0"]


def test_what_failed_is_run_again_and_what_is_done_is_not(mended: Run, tuning: Tuning) -> None:
    assert mended[0] == 0, mended[1]
    assert tuning.states() == {"add-0": "complete", "concat-0": "complete"}
    assert tuning.metrics()["concat-0"] == {"score": 0.8, "type_top1": 0.6}
    assert [line[0] for line in tuning.lines("done")] == ["concat-0", "add-0"]
    for name in ("history", "slice", "epochs", "importances"):
        assert (tuning.repository / f"reports/tune/{name}.png").read_bytes().startswith(b"\x89PNG")


def test_results_are_experiments_of_the_commit(mended: Run, tuning: Tuning) -> None:
    names = {outcome["experiment"] for outcome in tuning.report()["outcomes"]}
    assert set(run_dvc(tuning.repository, "exp", "list", "--name-only").stdout.split()) == names
    model = tuning.test_folder / "model"
    run_dvc(tuning.repository, "get", ".", "models/hybrid/model", "--rev", min(names), "--out", str(model))
    assert model.is_file(), "outputs are in the repository's cache"


def test_another_grid_finds_the_experiments_that_it_shares(mended: Run, tuning: Tuning) -> None:
    before = len(tuning.lines("runs"))
    status, output = tuning.run("fusion_method=concat", "seed=0,1")
    assert status == 0, output
    assert [line[0] for line in tuning.lines("runs")[before:]] == ["concat-1"]
    assert "Means over seeds" in output


def test_edits_while_it_runs_change_nothing(mended: Run, tuning: Tuning) -> None:
    (tuning.test_folder / "hold-attention-0").touch()
    process = tuning.start("fusion_method=attention", "seed=0,1")
    wait_until(lambda: tuning.lines("runs")[-1][0] == "attention-0")
    stage = tuning.repository / "stages/train.py"
    text = stage.read_text(encoding="utf-8")
    stage.write_text("raise SystemExit('half an edit')\n", encoding="utf-8")
    (tuning.test_folder / "hold-attention-0").unlink()
    output = process.communicate(timeout=300)[0]
    stage.write_text(text, encoding="utf-8")
    assert process.returncode == 0, output


def test_a_search_ends_what_falls_behind(mended: Run, tuning: Tuning) -> None:
    """The median pruner lets five trials run; of the rest, those of the worst method stay below the median."""
    (tuning.test_folder / "slow").touch()
    methods, storage = "fusion_method=concat,add", f"sqlite:///{tuning.test_folder / 'search.db'}"
    status, output = tuning.run(methods, "seed=10..40", "--trials", "12", "--prune", "--storage", storage)
    (tuning.test_folder / "slow").unlink()
    assert status == 0, output
    (name,) = optuna.get_all_study_names(storage)
    study = optuna.load_study(study_name=name, storage=storage)
    states = [trial.state.name for trial in study.trials]
    assert len(states) == 12
    assert set(states) == {"COMPLETE", "PRUNED"}, "some of both"
    done = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    # The sampler may propose values again; then their experiment is found and does not run.
    first_done = {trial.user_attrs[EXPERIMENT]: trial for trial in reversed(done)}
    assert all(len(trial.intermediate_values) == 3 for trial in first_done.values())
    assert tuning.report()["trials"] == 12


def test_a_trial_costs_little_more_than_its_experiment(
    mended: Run, tuning: Tuning, record_property: Callable[[str, object], None]
) -> None:
    """Seconds, of which most would be those of another start of DVC."""
    environment = ENVIRONMENT | {"TEST_FOLDER": str(tuning.test_folder)}
    alone = []
    for seed in (100, 101, 102):
        command = ["exp", "run", "--temp", "-S", f"seed={seed}", "evaluate@hybrid"]
        started = time.monotonic()
        run_dvc(tuning.repository, *command, environment=environment)
        alone.append(time.monotonic() - started)
    storage = f"sqlite:///{tuning.test_folder / 'overhead.db'}"
    status, output = tuning.run("seed=110,111,112", "--storage", storage)
    assert status == 0, output
    (name,) = optuna.get_all_study_names(storage)
    trials = optuna.load_study(study_name=name, storage=storage).trials
    took = [trial.duration.total_seconds() for trial in trials if trial.duration is not None]
    record_property("seconds alone and as a trial", (median(alone), median(took)))
    assert median(took) - median(alone) <= 5
