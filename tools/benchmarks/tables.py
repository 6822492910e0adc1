"""What the benchmark of gradient checkpointing measured, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from aerofuse.common.markdown import markdown_table
from aerofuse.plotting.wording import NONE
from tools.benchmarks.goals import GoalResult, write
from tools.benchmarks.rows import (
    AT_HALF,
    AT_SWITCH,
    BASELINE,
    LEAST,
    PLANNED,
    POLICY_WORDS,
    PROMISED,
    RECOMPUTE_ALL,
    SEGMENTS,
    SELECTIVE,
    SWITCH,
    Ways,
    by_variant,
    is_known,
    largest,
    largest_peak_error,
    largest_standard_error,
    planned,
    share_of_the_switchs_time,
)

_WAYS = (RECOMPUTE_ALL, SELECTIVE, SEGMENTS, SWITCH, LEAST)
_COMPARED = ("losses", "gradients", "buffers", "random_states")


def promised_range(family: str) -> str:
    """Return what was promised for a family, such as `30-40 %`; nothing for a network that is of none."""
    if family not in PROMISED:
        return NONE
    low, high = PROMISED[family]
    return f"{100 * low:.0f}-{100 * high:.0f} %"


def checkpointing_table(table: pd.DataFrame) -> str:
    """Return, per network, what was promised, what each way saves and costs, and the batch that then fits."""
    header = [
        "family",
        "variants",
        "measured on",
        "promised",
        *(f"{POLICY_WORDS.get(way, way)}: saves / time" for way in _WAYS),
        "batch",
    ]
    rows = []
    for variant, ways in by_variant(table).items():
        first = ways[BASELINE]
        cells = [first["family"], str(first["variants"]), f"`{variant}`", promised_range(first["family"])]
        rows.append([*cells, *(_saved_and_time(ways, way) for way in _WAYS), _batches(ways)])
    return markdown_table(header, rows, "lrl" + "r" * (len(header) - 3))


def _saved_and_time(ways: Ways, way: str) -> str:
    return f"{1 - ways[way]['peak_ratio']:.0%} / {_number(ways[way]['time_ratio'])}" if way in ways else NONE


def _batches(ways: Ways) -> str:
    """Return the batch that was counted, and the one that the plan which holds the least fits into the same memory."""
    batch = ways[BASELINE]["input_shape"].partition("x")[0]
    return f"{batch} to {ways[LEAST]['largest_batch']}" if LEAST in ways else NONE


def exactness_table(table: pd.DataFrame) -> str:
    """Return, per network, what two steps of each way change in any bit, against no checkpointing."""
    shown = {"planned": PLANNED, SEGMENTS: (SEGMENTS,), RECOMPUTE_ALL: (RECOMPUTE_ALL,), SWITCH: (SWITCH,)}
    header = ["measured on", "gradients", "buffers", *(f"differ, {name}" for name in shown)]
    rows = []
    for variant, ways in by_variant(table, "float32").items():
        first = ways[BASELINE]
        if is_known(first["gradients"]):
            differ = [_what_differs([ways[way] for way in names if way in ways]) for names in shown.values()]
            rows.append([f"`{variant}`", str(first["gradients"]), str(first["buffers"]), *differ])
    return markdown_table(header, rows, "lrr" + "l" * len(shown))


def _what_differs(rows: Sequence[pd.Series[Any]]) -> str:
    """Return text such as `104 buffers`; of several ways what any of them changes at most."""
    most = {name: largest(row[f"{name}_that_differ"] for row in rows) for name in _COMPARED}
    return ", ".join(f"{count:.0f} {name.replace('_', ' ')}" for name, count in most.items() if count) or "nothing"


def planned_table(table: pd.DataFrame) -> str:
    """Return, per network, what plans take at given peaks, beside timm's switch, and how right the planner was.

    Times are those of a step over the same without checkpointing, in brackets as predicted.
    """
    header = [
        "measured on",
        "switch: memory / time",
        "planned at its peak",
        "of the switch's extra time",
        "planned at 50 %",
        "least: memory / time",
        "standard error of times",
        "of the switch's memory",
        "peaks, predicted against real",
        "solved against counted",
    ]
    rows = [[f"`{variant}`", *_planned_cells(ways)] for variant, ways in by_variant(table).items()]
    return markdown_table(header, rows, "l" + "r" * (len(header) - 1))


def _planned_cells(ways: Ways) -> list[str]:
    switch, least = ways[SWITCH], ways.get(LEAST)
    share = share_of_the_switchs_time(ways) if AT_SWITCH in ways else None
    solved = largest(abs(row["solved_peak_bytes"] / row["peak_bytes"] - 1) for row in planned(ways))
    return [
        f"{switch['peak_ratio']:.2f} / {_number(switch['time_ratio'])}",
        _time(ways, AT_SWITCH),
        NONE if share is None else f"{share:.0%}",
        _time(ways, AT_HALF),
        NONE if least is None else f"{least['peak_ratio']:.2f} / {_time(ways, LEAST)}",
        NONE if (error := largest_standard_error(ways)) is None else f"{100 * error:.1f} points",
        NONE if least is None else f"{least['peak_bytes'] / switch['peak_bytes']:.2f}",
        _within(largest_peak_error(ways)),
        _within(solved),
    ]


def _time(ways: Ways, way: str) -> str:
    if way not in ways:
        return NONE
    return f"{_number(ways[way]['time_ratio'])} ({_number(ways[way]['predicted_time_ratio'])})"


def _number(value: Any) -> str:
    return f"{value:.2f}" if is_known(value) else NONE


def _within(value: float | None) -> str:
    return NONE if value is None else f"within {value:.1%}"


def goals_table(goals: Sequence[GoalResult]) -> str:
    """Return every goal: its bound and what is hoped for, the worst that was measured, and where."""
    rows = [
        [
            goal.name,
            f"<= {write(goal.at_most, goal.unit)}",
            NONE if goal.aim is None else f"<= {write(goal.aim, goal.unit)}",
            NONE if goal.value is None else f"{write(goal.value, goal.unit)} ({goal.where})",
            f"{goal.measured} of {goal.wanted}",
            _verdict(goal),
        ]
        for goal in goals
    ]
    return markdown_table(["goal", "must", "aim", "worst", "measured", "status"], rows, "lrrlrl")


def _verdict(goal: GoalResult) -> str:
    if goal.status == "fail":
        return f"**fail**: {', '.join(goal.failed)}"
    return "pass, aim reached" if goal.reaches_aim else goal.status


def monet_table(path: Path) -> str:
    """Return MONeT's published line beside ours, both as ratios to no checkpointing."""
    header = ["memory", "MONeT: time", "ours: time", "predicted time", "peak, measured over predicted"]
    rows = [
        [
            *(f"{row[name]:.3f}" for name in ("share", "published_time_ratio", "time_ratio", "predicted_time_ratio")),
            f"{row['peak_bytes'] / row['predicted_peak_bytes']:.3f}",
        ]
        for _, row in pd.read_csv(path).iterrows()
    ]
    return markdown_table(header, rows, "r" * len(header))
