"""What gradient checkpointing has to reach, as data, and the check against what the benchmark measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from tools.benchmarks.results import Planning, Results
from tools.benchmarks.rows import (
    AT_HALF,
    LEAST,
    PROMISED,
    SWITCH,
    Ways,
    by_variant,
    largest,
    largest_peak_error,
    largest_time_error,
    planned,
    share_of_the_switchs_time,
)

Status = Literal["pass", "fail", "not measured"]
# Of one network. Raises `KeyError` where a way is missing.
Value = Callable[[Ways], float | None]

EVERY = tuple(PROMISED)
# Nets of many small tensors, where switching between operations takes as long as they do, are asked for less.
SMALL = ("mobilenet", "regnet")
LARGE = tuple(family for family in EVERY if family not in SMALL)


@dataclass(frozen=True)
class Goal:
    """For each of `families`, or for their median: `value` must be `at_most` so much, and `aim` is what is hoped for.

    Shares are in 0..1 (shown as `%`, differences of them as `points`), times in `s`. `precision` says which rows are
    judged; `timed` are those of the first precision whose steps were timed.
    """

    name: str
    at_most: float
    aim: float | None
    value: Value
    families: tuple[str, ...] = EVERY
    unit: str = "%"
    precision: Literal["timed", "float32", "bf16"] = "timed"
    of_median: bool = False


@dataclass(frozen=True)
class GoalResult:
    """A goal with what was measured: the worst network's value, or the median.

    `measured` counts networks, `wanted` families; `where` names the worst network, `failed` all that miss the goal.
    """

    name: str
    at_most: float
    aim: float | None
    unit: str
    value: float | None
    where: str
    measured: int
    wanted: int
    failed: tuple[str, ...]

    @property
    def status(self) -> Status:
        """Whether all that was measured is within the bound."""
        if self.failed:
            return "fail"
        return "not measured" if self.value is None else "pass"

    @property
    def reaches_aim(self) -> bool:
        """Whether what is hoped for is reached, too."""
        return self.status == "pass" and self.aim is not None and self.value is not None and self.value <= self.aim

    def __str__(self) -> str:
        found = "nothing" if self.value is None else f"{write(self.value, self.unit)} ({self.where})"
        aim = "" if self.aim is None else f", aim {write(self.aim, self.unit)}"
        failed = f"; missed by {', '.join(self.failed)}" if self.failed else ""
        return (
            f"{self.status:12}  {self.name}: {found}, at most {write(self.at_most, self.unit)}{aim}, "
            f"{self.measured} of {self.wanted} measured{failed}"
        )


def write(value: float, unit: str) -> str:
    """A value as people say it, such as `60 %`, `2.5 points`, `0.85`, `30 s`."""
    return f"{100 * value:.3g} {unit}" if unit in ("%", "points") else f"{value:.3g} {unit}".strip()


def _extra_time_at_half(ways: Ways) -> float | None:
    return float(ways[AT_HALF]["time_ratio"] - 1)


def _least_over_the_switch(ways: Ways) -> float | None:
    return float(ways[LEAST]["peak_bytes"] / ways[SWITCH]["peak_bytes"])


def _tensors_that_differ(ways: Ways) -> float | None:
    return largest(
        row["losses_that_differ"]
        + row["gradients_that_differ"]
        + row["buffers_that_differ"]
        + row["random_states_that_differ"]
        for row in planned(ways)
    )


_SHARE_OF_TIME = "extra time at timm's own peak, of timm's"
_TRANSFORMERS_AND_LARGE_CNNS = tuple(family for family in LARGE if family != "vit")

GOALS = (
    Goal(_SHARE_OF_TIME, 0.60, 0.45, share_of_the_switchs_time, _TRANSFORMERS_AND_LARGE_CNNS),
    Goal(f"{_SHARE_OF_TIME}: ViT", 1.00, 0.90, share_of_the_switchs_time, ("vit",)),
    Goal(f"{_SHARE_OF_TIME}: small nets", 1.00, 0.70, share_of_the_switchs_time, SMALL),
    Goal("extra time at half of the memory, large nets", 0.14, 0.07, _extra_time_at_half, LARGE),
    Goal("least peak over timm's", 0.85, None, _least_over_the_switch, unit=""),
    Goal("least peak over timm's, median", 0.65, 0.60, _least_over_the_switch, unit="", of_median=True),
    Goal("predicted peak is off by, float32", 0.02, 0.005, largest_peak_error, precision="float32"),
    Goal("predicted peak is off by, bf16", 0.05, 0.03, largest_peak_error, precision="bf16"),
    Goal("predicted extra time is off by", 0.05, 0.03, largest_time_error, unit="points"),
    Goal("tensors that a planned run changes", 0, 0, _tensors_that_differ, unit="", precision="float32"),
)
_PLANNING_AT_MOST_S = 5.0


def check_goals(results: Results) -> list[GoalResult]:
    """Every goal, against the networks of its families that were measured."""
    return [*(_check(goal, results.table) for goal in GOALS), *_check_planning(results.planning)]


def _check(goal: Goal, table: pd.DataFrame) -> GoalResult:
    values: dict[str, float] = {}
    failed: list[str] = []
    judged = table if table.empty else table[table["family"].isin(goal.families)]
    for variant, ways in by_variant(judged, None if goal.precision == "timed" else goal.precision).items():
        try:
            value = goal.value(ways)
        except KeyError:  # the planner had no plan for a budget that the goal is about
            failed.append(variant)
            continue
        if value is not None:
            values[variant] = value
    if goal.of_median:
        value, where = (statistics.median(values.values()), "median") if values else (None, "")
        failed = ["the median"] if value is not None and value > goal.at_most else []
    else:
        where = max(values, key=values.__getitem__, default="")
        value = values.get(where)
        failed += [variant for variant, measured in values.items() if measured > goal.at_most]
    wanted = len(goal.families)
    return GoalResult(goal.name, goal.at_most, goal.aim, goal.unit, value, where, len(values), wanted, tuple(failed))


def _check_planning(planning: Planning | None) -> Iterator[GoalResult]:
    """Yield the time of planning from nothing, and that of a later process."""
    where = "" if planning is None else planning.model
    seconds = None if planning is None else planning.seconds
    seconds_again = None if planning is None else planning.seconds_again
    for name, value in (("planning", seconds), ("planning again", seconds_again)):
        failed = (where,) if value is not None and value > _PLANNING_AT_MOST_S else ()
        measured = 0 if value is None else 1
        title = f"{name} for the hybrid of base"
        yield GoalResult(title, _PLANNING_AT_MOST_S, None, "s", value, where, measured, 1, failed)
