"""A worker: takes rows of a study, one after the other, and runs them as experiments until none is left."""

from __future__ import annotations

import logging
import re
import socket
import time

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from aerofuse.tuning.repository import find_experiments, push_experiment, read_metrics
from aerofuse.tuning.study import EXPERIMENT, FOUND, LOG, NOT_PUSHED, ROW, SCORE, TARGETS, latest_trials, read_spec
from aerofuse.tuning.workplace import ExperimentFailedError, Workplace

logger = logging.getLogger(__name__)

_STAGE = re.compile(r"Running stage '([^']+)'")
_EPOCH = re.compile(rf"epoch (\d+): .*\b{SCORE} (-?[\d.]+)")  # as the loop of trainings logs it
_STEPS_PER_STAGE = 1000
_POLL_S = 2.0


class NothingLeftError(Exception):
    """Another worker was faster, and Optuna has made up a trial that is no row of the study."""


class EpochReports:
    """The validation score of each epoch, from what an experiment prints, for Optuna to end one that falls behind."""

    def __init__(self, trial: optuna.Trial, stages: tuple[str, ...]) -> None:
        self._trial = trial
        self._stages = stages
        self._stage = ""

    def __call__(self, line: str) -> None:
        """Take a line. Raises `TrialPruned` where the trial is not worth going on with."""
        if found := _STAGE.match(line):
            self._stage = found[1]
        elif self._stage in self._stages and (found := _EPOCH.match(line)):
            step = _STEPS_PER_STAGE * self._stages.index(self._stage) + int(found[1])
            self._trial.report(float(found[2]), step)
            if self._trial.should_prune():
                raise optuna.TrialPruned(f"{self._stage}, epoch {found[1]}: {SCORE} {found[2]}")


class Worker:
    """Works for a study in a place of its own; results are pushed to the git remote `push_to`, if there is one."""

    def __init__(self, study: optuna.Study, place: Workplace, push_to: str | None) -> None:
        self._study = study
        self._spec = read_spec(study)
        self._place = place
        self._push_to = push_to
        self.failures = 0

    def work(self) -> None:
        """Run what waits until every row has ended, in this worker or in another one; `failures` are its own."""
        while True:
            optuna.storages.fail_stale_trials(self._study)
            states = {trial.state for trial in latest_trials(self._study).values()}
            if TrialState.WAITING in states:
                self._run_one()
            elif TrialState.RUNNING in states:
                time.sleep(_POLL_S)  # its worker may die
            else:
                return

    def _run_one(self) -> None:
        try:
            self._study.optimize(self._objective, n_trials=1, catch=(ExperimentFailedError, NothingLeftError))
        except UpdateFinishedTrialError:
            logger.warning("this worker was silent for long, and another one has taken over its trial")

    def _objective(self, trial: optuna.Trial) -> float:
        row = trial.user_attrs.get(ROW)
        if row is None:
            raise NothingLeftError
        values = {setting.name: setting.draw(trial) for setting in self._spec.parsed}
        name = self._spec.experiment_name(values)
        trial.set_user_attr(EXPERIMENT, name)
        logger.info("%s begins on %s: %s", name, socket.gethostname(), " ".join(map("=".join, values.items())))
        try:
            # A worker that died may have been about to say that it is done.
            revision = find_experiments(name).get(name)
            if revision is None:
                target, stages = TARGETS[self._spec.model]
                revision = self._place.run(name, values, target, EpochReports(trial, stages))
        except ExperimentFailedError as error:
            self.failures += 1
            trial.set_user_attr(LOG, error.lines)
            logger.warning("%s has failed", name)
            raise
        except optuna.TrialPruned as pruned:
            logger.info("%s is pruned, %s", name, pruned)
            raise
        except KeyboardInterrupt:
            self._study.enqueue_trial(trial.params, {ROW: row})  # for another worker
            raise
        return self._record(trial, name, revision)

    def _record(self, trial: optuna.Trial, name: str, revision: str) -> float:
        model = self._spec.model
        training = f"train_{TARGETS[model][1][-1].rpartition('@')[2]}"
        trained, evaluated = f"metrics/train/{training}.json", f"metrics/evaluate/{model}.json"
        files = read_metrics([trained, evaluated], revision)
        score = float(files[trained][training][SCORE])
        trial.set_user_attr(FOUND, files[evaluated][model])
        logger.info("%s is done: %s %.4f", name, SCORE, score)
        if self._push_to is not None and (reason := push_experiment(name, self._push_to)) is not None:
            self.failures += 1
            trial.set_user_attr(NOT_PUSHED, reason)
            logger.warning("%s is not pushed: %s", name, reason)
        return score
