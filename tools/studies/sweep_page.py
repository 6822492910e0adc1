"""What a sweep has found, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from aerofuse.common.markdown import markdown_table
from aerofuse.plotting.wording import METRICS, write_value
from tools.studies.dvc_queue import FAILED, MISSING, QUEUED, RUNNING, SUCCESS
from tools.studies.experiments import HEADLINES

SCORE = "score"  # of the validation split; the best checkpoint has the highest
_COLUMNS = {SCORE: ("validation score", ""), **{name: METRICS[name] for name in HEADLINES}}
_WHAT_TO_DO = {
    FAILED: "`dvc queue logs {name}` shows all that it printed; the same command runs it again",
    QUEUED: "no worker of DVC's stays to run it; .dvc/tmp/exps/celery/*.out says why",
    RUNNING: "it was cut off with DVC's worker; `dvc queue kill {name}`, then the same command runs it again",
    MISSING: "it was taken out of DVC's queue; the same command runs it again",
}


@dataclass(frozen=True)
class Cell:
    """One experiment of the grid; its name says of which code and parameters."""

    fusion_method: str
    seed: int
    name: str


@dataclass(frozen=True)
class Outcome:
    """How an experiment ended: its status in DVC's queue, and what it found or, where it failed, printed last.

    `metrics` are the hybrid's on the test split, with its validation score as `score`.
    """

    cell: Cell
    status: str
    metrics: Mapping[str, float]
    log: tuple[str, ...] = ()


@dataclass(frozen=True)
class Summary:
    """A fusion method's metrics over its `n` seeds that are done; one seed has no standard deviations."""

    fusion_method: str
    n: int
    means: Mapping[str, float]
    deviations: Mapping[str, float]


def summarise(outcomes: Sequence[Outcome]) -> list[Summary]:
    """Each method that has a result, the one with the best mean validation score first."""
    summaries = []
    for method in dict.fromkeys(outcome.cell.fusion_method for outcome in outcomes):
        found = [outcome.metrics for outcome in outcomes if outcome.cell.fusion_method == method and outcome.metrics]
        if not found:
            continue
        # A task that the data has no labels of has no metrics.
        values = {name: [metrics[name] for metrics in found] for name in _COLUMNS if name in found[0]}
        means = {name: mean(each) for name, each in values.items()}
        deviations = {name: stdev(each) for name, each in values.items() if len(each) > 1}
        summaries.append(Summary(method, len(found), means, deviations))
    return sorted(summaries, key=lambda summary: summary.means[SCORE], reverse=True)


def sweep_page(outcomes: Sequence[Outcome], recipe: str) -> str:
    """The methods, every experiment, and what to do about those that are not done."""
    not_done = [outcome for outcome in outcomes if outcome.status != SUCCESS]
    parts = [
        "# Fusion methods over seeds",
        f"Recipe `{recipe}`; {len(outcomes) - len(not_done)} of {len(outcomes)} experiments are done. The hybrid's "
        "metrics on the test split, means over n training seeds ± sample standard deviations; methods are ranked by "
        "the score on the validation split, so that the test split chooses nothing.",
        _methods_table(outcomes),
        "## Experiments",
        _experiments_table(outcomes),
    ]
    for outcome in not_done:
        name = outcome.cell.name
        parts.append(f"**{name}: {outcome.status.lower()}**; {_WHAT_TO_DO[outcome.status].format(name=name)}.")
        if outcome.log:
            parts.append("\n".join(["```", *outcome.log, "```"]))
    return "\n\n".join(parts) + "\n"


def _methods_table(outcomes: Sequence[Outcome]) -> str:
    rows = []
    for summary in summarise(outcomes):
        row = [summary.fusion_method, str(summary.n)]
        for name, (_, unit) in _COLUMNS.items():
            shown = write_value(summary.means.get(name), unit)
            if name in summary.deviations:
                shown += f" ± {write_value(summary.deviations[name], unit)}"
            row.append(shown)
        rows.append(row)
    return markdown_table(["fusion method", "n", *_headings()], rows, "lr" + "r" * len(_COLUMNS))


def _experiments_table(outcomes: Sequence[Outcome]) -> str:
    rows = []
    for outcome in outcomes:
        values = [write_value(outcome.metrics.get(name), unit) for name, (_, unit) in _COLUMNS.items()]
        cell = outcome.cell
        rows.append([cell.name, cell.fusion_method, str(cell.seed), outcome.status.lower(), *values])
    return markdown_table(
        ["experiment", "fusion method", "seed", "status", *_headings()], rows, "llrl" + "r" * len(_COLUMNS)
    )


def _headings() -> list[str]:
    return [heading for heading, _ in _COLUMNS.values()]
