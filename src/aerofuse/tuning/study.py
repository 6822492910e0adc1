"""A study: what it varies, how far it goes, and its state in Optuna's storage, a database that workers share.

A study is a list of rows, each of which becomes one experiment. A row waits in the storage as a trial; where a worker
dies or an experiment fails, another trial of the same row takes its place. In a grid a row has its values from the
beginning; in a search the sampler draws them when the row's turn comes.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import OptunaError
from optuna.pruners import MedianPruner, NopPruner
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import create_engine, inspect
from sqlalchemy.exc import SQLAlchemyError

from aerofuse.tracking.addresses import hide_password
from aerofuse.tuning.settings import Setting

# What a model's experiment runs up to, and the training stages whose epochs are reported, in their order.
TARGETS = {
    "hybrid": ("evaluate@hybrid", ("train_hybrid@stage_a", "train_hybrid@stage_b", "train_hybrid@stage_c")),
    "multi_task": ("evaluate@multi_task", ("train_baseline@multi_task",)),
    "single_task": ("evaluate@single_task", ("train_baseline@single_task",)),
}
SCORE = "score"  # of the validation split; the best checkpoint has the highest
ROW, EXPERIMENT, FOUND, LOG, NOT_PUSHED = "row", "experiment", "metrics", "log", "not_pushed"  # of a trial
_SPEC, _COMMIT = "aerofuse", "commit"  # of a study
_RETRIES = 3  # of a row whose workers die
_DRIVERS = {"postgres": "postgresql+psycopg2", "postgresql": "postgresql+psycopg2"}
_PATIENCE = {"postgresql": {"connect_timeout": 10}, "sqlite": {"timeout": 60}}


@dataclass(frozen=True)
class StudySpec:
    """What makes a study: `settings` by name as a user writes them, and the fingerprint of what it is about.

    `trials` says how many a search makes; a grid has none.
    """

    settings: Mapping[str, str]
    fingerprint: str
    model: str = "hybrid"
    trials: int | None = None
    prune: bool = False

    @cached_property
    def parsed(self) -> list[Setting]:
        """The settings as objects."""
        return [Setting.parse(name, values) for name, values in self.settings.items()]

    @property
    def target(self) -> str:
        """The last stage of its experiments."""
        return TARGETS[self.model][0]

    def default_name(self) -> str:
        """Return a name that another study does not have; a search may be continued with more trials."""
        return f"tune-{_digest(asdict(replace(self, trials=self.trials and 1)))}"

    def experiment_name(self, values: Mapping[str, str]) -> str:
        """Return the name of an experiment: other code, photos or values have another one."""
        return f"tune-{self.fingerprint}-{_digest([self.target, dict(values)])}"

    def rows(self) -> list[dict[str, str]]:
        """Return the values of each row; those of a search have none yet. Raises `ValueError` for a range in a grid."""
        if self.trials is not None:
            return [{} for _ in range(self.trials)]
        for setting in self.parsed:
            if setting.is_range:
                raise ValueError(f"{setting.name} is a range, which a grid has no end of: say how many --trials")
        names = [setting.name for setting in self.parsed]
        return [
            dict(zip(names, values, strict=True))
            for values in itertools.product(*(setting.choices for setting in self.parsed))
        ]


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Say in one line, without a password, what is wrong with a storage. Raises `ValueError`."""
    try:
        yield
    except Exception as error:
        causes = [one for one in _chain(error) if isinstance(one, SQLAlchemyError | OptunaError)]
        if not causes:
            raise
        reason = str(causes[-1]).splitlines()[0].replace(url, hide_password(url))
        raise ValueError(f"the storage {hide_password(url)} cannot be used: {reason}") from None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those before it: where Optuna cannot note an error, it fails in ways of its own."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def connect(url: str, heartbeat_s: int, *, create: bool) -> RDBStorage:
    """Open a storage, in which a worker is dead when it has been silent for twice `heartbeat_s`.

    Raises `ValueError` where it is gone, belongs to another program, or is empty and `create` does not allow that.
    """
    scheme, mark, rest = url.partition("://")
    full = f"{_DRIVERS.get(scheme, scheme)}{mark}{rest}"
    kind = re.split(r"[+:]", full)[0]
    if kind == "sqlite":
        path = Path(rest.removeprefix("/"))
        if not create and not path.is_file():
            raise ValueError(f"there is no storage {path}; start a study there first: aerofuse tune NAME=VALUES ...")
        path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"connect_args": _PATIENCE.get(kind, {}), "pool_pre_ping": True}
    again = RetryHeartbeatStaleTrialCallback(_RETRIES, inherit_intermediate_values=True)
    with storage_errors(full):
        _check_tables(full, options, create)
        try:
            return RDBStorage(full, options, heartbeat_interval=heartbeat_s, heartbeat_stale_trial_callback=again)
        except RuntimeError as error:  # the tables are of another version of Optuna
            raise ValueError(f"{hide_password(full)}: {error}") from None


def _check_tables(url: str, options: Mapping[str, Any], create: bool) -> None:
    try:
        engine = create_engine(url, **options)
    except ImportError as error:
        raise ValueError(f"{hide_password(url)}: {error}: pip install 'aerofuse[postgresql]'") from None
    tables = inspect(engine).get_table_names()
    engine.dispose()
    if "studies" not in tables and (tables or not create):
        what = f"has tables of another program ({', '.join(tables[:3])})" if tables else "is empty"
        raise ValueError(
            f"the storage {hide_password(url)} {what}; name {'an empty one' if create else 'that of a study'}"
        )


def start_study(storage: RDBStorage, name: str, spec: StudySpec, commit: str) -> optuna.Study:
    """Create a study with all its rows, or go on with it, running again what failed.

    Raises `ValueError`, and changes nothing, where a study of that name has another spec.
    """
    rows = spec.rows()
    if name in optuna.get_all_study_names(storage):
        study = optuna.load_study(study_name=name, storage=storage)
        found = read_spec(study)
        if replace(found, trials=None) != replace(spec, trials=None) or (found.trials is None) != (spec.trials is None):
            raise ValueError(
                f"there is another study {name}, of {_describe(found)}; this one is of {_describe(spec)}: give it "
                "another --name, or go on with that one as it was"
            )
        for row, trial in latest_trials(study).items():
            if trial.state == TrialState.FAIL:
                study.enqueue_trial(trial.params, {ROW: row})
    else:
        study = optuna.create_study(storage=storage, study_name=name, direction="maximize")
        study.set_user_attr(_COMMIT, commit)
        study.set_user_attr(_SPEC, asdict(spec))
    there = latest_trials(study)
    for row, values in enumerate(rows):
        if row not in there:
            study.enqueue_trial(values, {ROW: row})
    return study


def join_study(storage: RDBStorage, name: str | None, fingerprint: str) -> optuna.Study:
    """Return a study to work for; without a name the only one of the storage.

    Raises `ValueError` where it is not there, or was made with another content of the repository.
    """
    names = optuna.get_all_study_names(storage)
    if name is None and len(names) == 1:
        (name,) = names
    if name not in names:
        which = f"there is no study {name}" if name else "say which study with --name"
        raise ValueError(f"{which}; the storage has {', '.join(names) or 'none'}")
    # Several workers draw at the same time: what others try now counts as bad, so that they do not try the same.
    study = optuna.load_study(study_name=name, storage=storage, sampler=TPESampler(constant_liar=True))
    spec = read_spec(study)
    study.pruner = MedianPruner() if spec.prune else NopPruner()
    if spec.fingerprint != fingerprint:
        raise ValueError(
            f"the study {name} was made with other code, parameters or photos (fingerprint {spec.fingerprint}, here "
            f"{fingerprint}); check out {study.user_attrs[_COMMIT][:10]} with the same edits and photos (docs/teams.md)"
        )
    return study


def read_spec(study: optuna.Study) -> StudySpec:
    """Return what a study was made with. Raises `ValueError` where it is another program's."""
    found = study.user_attrs.get(_SPEC)
    if found is None:
        raise ValueError(f"the study {study.study_name} is not one of `aerofuse tune`; give another --name")
    return StudySpec(**found)


def _describe(spec: StudySpec) -> str:
    words = [f"{name}={values}" for name, values in spec.settings.items()]
    how = "a grid" if spec.trials is None else "a search"
    return f"{how} over {' '.join(words)} ({spec.model}, prune {spec.prune}, fingerprint {spec.fingerprint})"


def latest_trials(study: optuna.Study) -> dict[int, FrozenTrial]:
    """Return the latest trial of each row, in the order of rows."""
    latest = {trial.user_attrs[ROW]: trial for trial in study.get_trials(deepcopy=False) if ROW in trial.user_attrs}
    return dict(sorted(latest.items()))
