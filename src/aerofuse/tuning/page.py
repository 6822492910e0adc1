"""What a study has found: a page with one table, Optuna's plots as pictures, and the same as JSON."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev

import optuna
from optuna.trial import FrozenTrial, TrialState

from aerofuse.common.files import write_json
from aerofuse.common.markdown import markdown_table
from aerofuse.plotting.wording import METRICS, write_value
from aerofuse.tuning.repository import HEADLINES
from aerofuse.tuning.study import EXPERIMENT, FOUND, LOG, NOT_PUSHED, SCORE, latest_trials, read_spec
from aerofuse.tuning.workplace import FOLDER

COMPLETE, PRUNED, FAILED = "complete", "pruned", "fail"  # Optuna's words, in small letters
_SEED = "seed"
_COLUMNS = {SCORE: ("validation score", ""), **{name: METRICS[name] for name in HEADLINES}}
_PICTURES = {
    "history": "Validation score by trial",
    "importances": "How much each parameter matters",
    "slice": "Validation score by parameter",
    "epochs": "Validation score by epoch",
}


@dataclass(frozen=True)
class StudyOutcome:
    """How a row of a study stands, in Optuna's words: `complete`, `pruned`, `fail`, `running` or `waiting`.

    `metrics` are the model's on the test split, with its validation score as `score`. `log` has what an experiment that
    failed printed last, and `not_pushed` why one that is done is only where it was run.
    """

    values: Mapping[str, object]
    state: str
    experiment: str
    metrics: Mapping[str, float]
    log: Sequence[str] = ()
    not_pushed: str | None = None

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do."""
        return self.state in (COMPLETE, PRUNED) and self.not_pushed is None


def read_outcomes(study: optuna.Study) -> list[StudyOutcome]:
    """Return all rows of a study, the best validation score first."""
    outcomes = [_outcome(trial) for trial in latest_trials(study).values()]
    return sorted(outcomes, key=lambda outcome: -outcome.metrics.get(SCORE, float("-inf")))


def _outcome(trial: FrozenTrial) -> StudyOutcome:
    notes = trial.user_attrs
    metrics = {SCORE: trial.value, **notes[FOUND]} if trial.state == TrialState.COMPLETE else {}
    log = notes.get(LOG, ["its workers have died"]) if trial.state == TrialState.FAIL else ()
    name = notes.get(EXPERIMENT, "-")
    return StudyOutcome(trial.params, trial.state.name.lower(), name, metrics, log, notes.get(NOT_PUSHED))


def write_report(study: optuna.Study, reports: Path) -> tuple[str, bool]:
    """Write `tune.md`, `tune.json` and the pictures; return the page, and whether everything is done."""
    outcomes = read_outcomes(study)
    page = study_page(study, outcomes, _draw(study, reports / "tune"))
    content = {"study": study.study_name, **asdict(read_spec(study)), "outcomes": [asdict(one) for one in outcomes]}
    write_json(reports / "tune.json", content)
    (reports / "tune.md").write_text(page, encoding="utf-8")
    return page, all(outcome.is_done for outcome in outcomes)


def study_page(study: optuna.Study, outcomes: Sequence[StudyOutcome], pictures: Sequence[str]) -> str:
    """Show every row, the means over seeds where there are several, and what to do about those that are not done."""
    spec = read_spec(study)
    ended = sum(outcome.state in (COMPLETE, PRUNED) for outcome in outcomes)
    varied = ", ".join(f"`{name}={values}`" for name, values in spec.settings.items())
    parts = [
        f"# Study {study.study_name}",
        f"{'A grid' if spec.trials is None else 'A search'} over {varied}; {ended} of {len(outcomes)} trials are done. "
        f"Metrics are those of the {spec.model} model on the test split. The score on the validation split ranks the "
        "trials, so that the test split chooses nothing.",
    ]
    names = list(spec.settings)
    if _SEED in names and len(names) > 1:
        parts += ["Means over seeds ± sample standard deviations:", _seeds_table(outcomes, names)]
    parts += ["## Trials", _trials_table(outcomes, names)]
    parts += [f"![{_PICTURES[name]}](tune/{name}.png)" for name in pictures]
    for outcome in outcomes:
        parts += _remarks(outcome)
    return "\n\n".join(parts) + "\n"


def _seeds_table(outcomes: Sequence[StudyOutcome], names: Sequence[str]) -> str:
    others = [name for name in names if name != _SEED]
    groups: dict[tuple[str, ...], list[Mapping[str, float]]] = {}
    for outcome in outcomes:
        if outcome.metrics:
            groups.setdefault(tuple(str(outcome.values[name]) for name in others), []).append(outcome.metrics)
    rows = []
    for values, found in sorted(groups.items(), key=lambda group: -mean(metrics[SCORE] for metrics in group[1])):
        rows.append([*values, str(len(found)), *(_spread(found, name, unit) for name, (_, unit) in _COLUMNS.items())])
    header = [*others, "n", *(heading for heading, _ in _COLUMNS.values())]
    return markdown_table(header, rows, "l" * len(others) + "r" + "r" * len(_COLUMNS))


def _spread(found: Sequence[Mapping[str, float]], name: str, unit: str) -> str:
    values = [metrics[name] for metrics in found if name in metrics]  # none where the data has no labels of the task
    shown = write_value(mean(values) if values else None, unit)
    return f"{shown} ± {write_value(stdev(values), unit)}" if len(values) > 1 else shown


def _trials_table(outcomes: Sequence[StudyOutcome], names: Sequence[str]) -> str:
    rows = []
    for outcome in outcomes:
        values = [str(outcome.values.get(name, "-")) for name in names]
        metrics = [write_value(outcome.metrics.get(name), unit) for name, (_, unit) in _COLUMNS.items()]
        rows.append([*values, outcome.state, *metrics, outcome.experiment])
    header = [*names, "state", *(heading for heading, _ in _COLUMNS.values()), "experiment"]
    return markdown_table(header, rows, "l" * (len(names) + 1) + "r" * len(_COLUMNS) + "l")


def _remarks(outcome: StudyOutcome) -> list[str]:
    name = outcome.experiment
    if outcome.not_pushed is not None:
        return [f"**{name} is not pushed**: {outcome.not_pushed}. `dvc exp push REMOTE {name}` tries again."]
    if outcome.state == FAILED:
        where = FOLDER / "logs" / f"{name}.log"
        remedy = f"**{name} failed**; `{where}`, where it ran, has all that it printed. The same command runs it again."
        return [remedy, "\n".join(["```", *outcome.log, "```"])]
    return []


def _draw(study: optuna.Study, folder: Path) -> list[str]:
    """Write Optuna's plots that the trials are enough for, and return their names."""
    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state == TrialState.COMPLETE]
    if len({trial.value for trial in complete}) < 2:
        return []
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from optuna.visualization import matplotlib as plots

    draws: dict[str, Callable[..., object]] = {
        "history": plots.plot_optimization_history,
        "importances": plots.plot_param_importances,
        "slice": plots.plot_slice,
        "epochs": plots.plot_intermediate_values,
    }
    if not any(trial.intermediate_values for trial in complete):
        del draws["epochs"]
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        for name, draw in draws.items():
            draw(study)
            pyplot.gcf().savefig(folder / f"{name}.png", dpi=100, bbox_inches="tight")
            pyplot.close("all")
    return list(draws)
