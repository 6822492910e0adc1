from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from aerofuse.backbones.families import FAMILIES
from tests.tools.benchmarks.samples import WAYS, results, row
from tools.benchmarks.goals import GOALS, GoalResult, check_goals
from tools.benchmarks.results import Planning, Results
from tools.benchmarks.rows import AT_HALF, AT_SWITCH, BASELINE, LEAST, SWITCH, Differences, PeakCheck, Row, as_table

SHARE, OFF = "extra time at timm's own peak, of timm's", "predicted extra time is off by"

Change = Callable[[Row], Row]


def goals_of(found: Results) -> dict[str, GoalResult]:
    return {goal.name: goal for goal in check_goals(found)}


def changed(family: str, way: str, change: Change, precision: str = "float32") -> dict[str, GoalResult]:
    """The goals where one row is another."""
    rows = [row(name, each, kind) for name in FAMILIES for kind in ("float32", "bf16") for each in WAYS]
    where = (family, way, precision)
    return goals_of(results(*(change(one) if (one.family, one.way, one.precision) == where else one for one in rows)))


def slower(by: float) -> Change:
    def change(one: Row) -> Row:
        assert one.times is not None
        return dataclasses.replace(one, times=dataclasses.replace(one.times, time_ratio=one.times.time_ratio + by))

    return change


def test_all_goals_are_reached_where_all_is_well() -> None:
    goals = check_goals(results())
    assert [goal.status for goal in goals] == ["pass"] * (len(GOALS) + 2)
    assert all(goal.measured == goal.wanted for goal in goals)
    assert {name for goal in GOALS for name in goal.families} == set(FAMILIES)
    first = goals[0]
    assert str(first).startswith("pass ")
    assert "extra time at timm's own peak, of timm's: 40 % (" in str(first)
    assert "at most 60 %, aim 45 %, 7 of 7 measured" in str(first)
    assert first.reaches_aim


@pytest.mark.parametrize(
    ("family", "way", "change", "missed"),
    [
        (
            "swin",
            AT_SWITCH,
            slower(0.1),
            {"extra time at timm's own peak, of timm's", "predicted extra time is off by"},
        ),
        (
            "vit",
            AT_SWITCH,
            slower(0.2),
            {"extra time at timm's own peak, of timm's: ViT", "predicted extra time is off by"},
        ),
        (
            "maxvit",
            AT_HALF,
            slower(0.1),
            {"extra time at half of the memory, large nets", "predicted extra time is off by"},
        ),
        # Of a small net more is allowed.
        ("regnet", AT_HALF, slower(0.04), set()),
        (
            "convnext",
            LEAST,
            lambda one: dataclasses.replace(one, peaks=dataclasses.replace(one.peaks, peak_bytes=10**9)),
            {"least peak over timm's"},
        ),
        (
            "resnet",
            LEAST,
            lambda one: dataclasses.replace(one, check=PeakCheck("2", 97, 100, -0.03)),
            {"predicted peak is off by, float32"},
        ),
        (
            "resnet",
            AT_HALF,
            lambda one: dataclasses.replace(one, differences=Differences(0, 160, 1, 106, 2, 0)),
            {"tensors that a planned run changes"},
        ),
    ],
)
def test_what_misses_a_goal_is_named(family: str, way: str, change: Change, missed: set[str]) -> None:
    goals = changed(family, way, change)
    assert {name for name, goal in goals.items() if goal.status == "fail"} == missed
    for name in missed:
        assert len(goals[name].failed) == 1
        assert f"missed by {goals[name].failed[0]}" in str(goals[name])


def test_a_peak_in_bf16_has_a_bound_of_its_own() -> None:
    def off(by: float) -> Change:
        return lambda one: dataclasses.replace(one, check=PeakCheck("2", 100, 100, by))

    assert changed("vit", LEAST, off(-0.04), "bf16")["predicted peak is off by, bf16"].status == "pass"
    assert changed("vit", LEAST, off(-0.06), "bf16")["predicted peak is off by, bf16"].failed


def test_a_plan_that_was_refused_misses_the_goal() -> None:
    rows = [row("vit", way) for way in WAYS if way != AT_SWITCH]
    goal = goals_of(results(*rows))["extra time at timm's own peak, of timm's: ViT"]
    assert goal.status == "fail"
    assert goal.value is None
    assert "nothing" in str(goal)


def test_what_was_not_measured_is_neither_reached_nor_missed() -> None:
    found = results()
    nothing = Results(found.machine, found.settings)
    assert {goal.status for goal in check_goals(nothing)} == {"not measured"}
    only_counted = results(*(row("vit", way, "bf16") for way in (BASELINE, SWITCH)))
    assert {goal.status for goal in check_goals(dataclasses.replace(only_counted, planning=None))} == {"not measured"}


def test_planning_may_take_so_long() -> None:
    planning = Planning("hybrid of base", "16x3x224x224", "bf16", 31.0, 3.0)
    first, again = check_goals(dataclasses.replace(results(), planning=planning))[-2:]
    assert (first.status, again.status) == ("fail", "pass")
    assert "31 s (hybrid of base), at most 5 s" in str(first)
    assert "3 s (hybrid of base), at most 5 s" in str(again)


def test_the_median_is_one_value() -> None:
    goals = goals_of(dataclasses.replace(results(), table=as_table([row("vit", way) for way in WAYS])))
    assert goals["least peak over timm's, median"].value == pytest.approx(0.6)
    assert goals["least peak over timm's, median"].where == "median"
