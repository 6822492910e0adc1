"""The verdict: which model is best at what, and whether the test images can tell."""

from __future__ import annotations

from dataclasses import dataclass

from aerofuse.comparison.comparison import Comparison, ModelRow
from aerofuse.metrics.statistics import Interval
from aerofuse.plotting.wording import (
    MAIN_METRICS,
    METRICS,
    MODELS,
    write_interval,
    write_list,
    write_threshold,
    write_value,
)


@dataclass(frozen=True)
class Lead:
    """The best model in one metric, as text; `clear` where it is ahead of every other that has the metric.

    `ahead_of` says by how much, with interval, for each other model.
    """

    metric: str
    name: str
    model: str
    value: str
    interval: str
    ahead_of: tuple[str, ...]
    clear: bool


def leads(comparison: Comparison) -> list[Lead]:
    """Return the best model in each main metric that the test images have labels for."""
    return [_lead(comparison, metric) for metric in MAIN_METRICS if any(metric in r.intervals for r in comparison.rows)]


def _lead(comparison: Comparison, metric: str) -> Lead:
    name, unit = METRICS[metric]
    sign = -1 if metric.endswith("_mae") else 1
    rows = [row for row in comparison.rows if metric in row.intervals]
    # Of equally good ones the smallest model comes first.
    best = max(rows, key=lambda row: (sign * row.metrics[metric], -row.times.parameters))
    others = [row for row in rows if row is not best]
    differences = [_advantage(comparison, best, other, metric, sign) for other in others]
    gain_unit = "points" if unit == "%" else unit
    written = tuple(
        f"{write_value(estimate, gain_unit, signed=True)} "
        f"{write_interval(interval.low, interval.high, gain_unit, signed=True)} over {MODELS[other.model]}"
        for other, (estimate, interval) in zip(others, differences, strict=True)
    )
    return Lead(
        metric=metric,
        name=name,
        model=best.model,
        value=write_value(best.metrics[metric], unit),
        interval=write_interval(best.intervals[metric].low, best.intervals[metric].high, unit),
        ahead_of=written,
        clear=bool(others) and all(interval.low > 0 for _, interval in differences),
    )


def _advantage(
    comparison: Comparison, best: ModelRow, other: ModelRow, metric: str, sign: int
) -> tuple[float, Interval]:
    """Return by how much `best` is better than `other`: the difference, turned so that more is better."""
    forward = comparison.difference(best.model, other.model, metric)
    entry = forward or comparison.difference(other.model, best.model, metric)
    assert entry is not None, "every pair of models with a metric is compared"
    turned = sign if forward is not None else -sign
    found = entry.difference
    # Not -0.0, which would be written with its sign.
    estimate, *ends = (turned * value + 0.0 for value in (found.estimate, found.low, found.high))
    return estimate, Interval(min(ends), max(ends))


def headline(comparison: Comparison) -> str:
    """Return one sentence or two: who is clearly best at what, and where nobody is."""
    found = leads(comparison)
    if not found:
        return "The test images have no labels, so no model can be called better."
    sentences = []
    for model in MODELS:
        tasks = [lead.metric.partition("_")[0] for lead in found if lead.model == model and lead.clear]
        if tasks:
            sentences.append(f"The {MODELS[model]} model is best at {write_list(tasks)}.")
    tied = [lead.metric.partition("_")[0] for lead in found if not lead.clear]
    if tied:
        sentences.append(f"At {write_list(tied)} these test images do not tell the best models apart.")
    return " ".join(sentences)


def gain_sentence(comparison: Comparison) -> str:
    """Return the gain in type accuracy of the hybrid over the multi-task baseline, the hybrid's first gate."""
    gain = comparison.difference("hybrid", "multi_task", "type_top1")
    if gain is None:
        return "Whether the hybrid names more types than the multi-task baseline cannot be measured without labels."
    found = gain.difference
    level = f"{100 * comparison.settings.confidence_level:g} %"
    ends = f"{100 * found.low:+.2f} to {100 * found.high:+.2f}"
    goal = next(gate for gate in comparison.gates if gate.unit == "points")
    return (
        "Type accuracy of the hybrid minus that of the multi-task baseline: "
        f"{write_value(found.estimate + 0.0, 'points', signed=True)}, {level} interval {ends}. The goal of "
        f"at least {write_threshold(goal.threshold, goal.unit)} is {'' if goal.status == 'pass' else 'not '}reached."
    )
