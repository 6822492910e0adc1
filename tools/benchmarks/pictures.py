"""What the benchmark of gradient checkpointing measured, as pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import PercentFormatter

from aerofuse.plotting.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PALE,
    VERMILLION,
    new_figure,
    save_figure,
    styled,
)
from tools.benchmarks.rows import (
    AT_HALF,
    AT_SWITCH,
    LEAST,
    PLANNED,
    PROMISED,
    RECOMPUTE_ALL,
    SEGMENTS,
    SWITCH,
    UNCHECKED,
    Ways,
    by_variant,
)

# way: (marker, colour)
_MARKS = {
    **dict.fromkeys(PLANNED, ("o", BLUE)),
    SWITCH: ("s", ORANGE),
    SEGMENTS: ("^", GREEN),
    RECOMPUTE_ALL: ("D", VERMILLION),
}
_LOWEST, _HIGHEST = 0.95, 1.75  # time in a picture; what is beyond stands at the edge, with its number
_COLUMNS = 5
_LEAST_WIDTH_IN = 7.5  # for the title and the legend
_KINDS = {
    "parameters": GREY,
    "optimizer_state": "#BBBBBB",
    "gradients": GREEN,
    "inputs": INK,
    "activations": BLUE,
    "temporaries": ORANGE,
}
_BARS = (UNCHECKED, SWITCH, AT_SWITCH, AT_HALF, LEAST)


@styled
def draw_frontiers(table: pd.DataFrame, curves: Mapping[str, Sequence[tuple[float, float]]], path: Path) -> None:
    """Write memory against time, a panel per network: the planner's curve, and what was measured.

    `curves` holds points of memory and time by network, both over those without checkpointing. Bars are quartiles.
    """
    networks = by_variant(table)
    columns, rows = _grid(len(networks))
    figure = new_figure(max(_LEAST_WIDTH_IN, 2.5 * columns), 2.3 * rows + 1.1)
    figure.suptitle("Time of a step and peak of what it holds, over those without checkpointing", x=0.01, ha="left")
    slowest = max(float(row["time_ratio"]) for ways in networks.values() for way, row in ways.items() if way in _MARKS)
    panels = _panels(figure, rows, columns, len(networks))
    for number, (axes, (variant, ways)) in enumerate(zip(panels, networks.items(), strict=True)):
        axes.set_title(variant, fontsize=9)
        _draw_frontier(axes, ways, curves.get(variant, ()))
        axes.set_ylim(_LOWEST - 0.02, max(1.25, min(slowest, _HIGHEST) + 0.06))
        if number % columns == 0:
            axes.set_ylabel("time")
        if number >= len(networks) - columns:
            axes.set_xlabel("activations and temporaries", fontsize=9)
    known = [Line2D([], [], color=BLUE, linewidth=1.5, label="planner's curve, predicted")]
    names = {"planned, measured": PLANNED[0], SWITCH: SWITCH, SEGMENTS: SEGMENTS, RECOMPUTE_ALL: RECOMPUTE_ALL}
    known += [_legend_mark(way, name) for name, way in names.items()]
    figure.legend(handles=known, loc="outside lower center", ncols=len(known) if columns > 2 else 3)
    save_figure(figure, path)


def _grid(panels: int) -> tuple[int, int]:
    """Columns and rows. Raises `ValueError` where there is nothing to draw."""
    if not panels:
        raise ValueError("the table has no network whose steps were timed")
    columns = min(_COLUMNS, panels)
    return columns, math.ceil(panels / columns)


def _panels(figure: Any, rows: int, columns: int, used: int) -> list[Any]:
    """Axes of one scale, as many as are used; the others are not seen."""
    panels = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for axes in panels[used:]:
        axes.set_visible(False)
    return panels[:used]


def _draw_frontier(axes: Any, ways: Ways, curve: Sequence[tuple[float, float]]) -> None:
    if curve:
        # Between two plans the lower one is what a budget gets.
        axes.step(*zip(*curve, strict=True), where="post", color=BLUE, linewidth=1.5, zorder=2)
    for way, (marker, colour) in reversed(_MARKS.items()):
        if way in ways:
            _draw_point(axes, ways[way], marker, colour)
    axes.set_xlim(0, 1.06)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axes.set_xticks((0.25, 0.5, 0.75, 1))
    axes.tick_params(labelsize=8)


def _draw_point(axes: Any, row: pd.Series[Any], marker: str, colour: str) -> None:
    memory, time = float(row["peak_ratio"]), float(row["time_ratio"])
    at = _within(time)
    axes.plot(memory, at, marker, color=colour, markersize=5, markeredgecolor="white", zorder=4)
    if at != time:
        # The curve runs up past it.
        halo = [withStroke(linewidth=3, foreground="white")]
        place = {"xytext": (6, -3), "textcoords": "offset points"}
        axes.annotate(f"{time:.2f}", (memory, at), fontsize=8, color=colour, path_effects=halo, zorder=5, **place)
        return
    quartiles = [_within(float(row[name])) for name in ("time_ratio_low", "time_ratio_high")]
    axes.plot([memory, memory], quartiles, color=colour, linewidth=1, zorder=3)


def _within(time: float) -> float:
    return min(max(time, _LOWEST), _HIGHEST)


def _legend_mark(way: str, name: str) -> Line2D:
    marker, colour = _MARKS[way]
    return Line2D([], [], marker=marker, color=colour, linestyle="", markersize=6, markeredgecolor="white", label=name)


@styled
def draw_promises(table: pd.DataFrame, path: Path) -> None:
    """Write, per family, the saving that the replaced system promised as a bar, and those that were measured."""
    networks = {name: ways for name, ways in by_variant(table).items() if ways[UNCHECKED]["family"] in PROMISED}
    figure = new_figure(8.6, 0.36 * len(networks) + 1.7)
    axes = figure.subplots()
    for height, ways in enumerate(networks.values()):
        low, high = PROMISED[ways[UNCHECKED]["family"]]
        axes.barh(height, high - low, left=low, height=0.62, color=PALE, edgecolor=GREY, linewidth=0.6)
        for way in (RECOMPUTE_ALL, SWITCH, LEAST):
            if way in ways:
                marker, colour = _MARKS[way]
                saved = 1 - float(ways[way]["peak_ratio"])
                axes.plot(saved, height, marker, color=colour, markersize=7, markeredgecolor="white", zorder=3)
    axes.set_yticks(range(len(networks)), list(networks))
    axes.set(xlim=(0, 1), ylim=(len(networks) - 0.4, -0.6))
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axes.set_xlabel("activations and temporaries saved at the peak")
    axes.set_title("Saving promised, and measured")
    promised = Patch(facecolor=PALE, edgecolor=GREY, linewidth=0.6, label="promised")
    marks = [_legend_mark(way, way) for way in (RECOMPUTE_ALL, SWITCH, LEAST)]
    figure.legend(handles=[promised, *marks], loc="outside lower center", ncols=4)
    save_figure(figure, path)


@styled
def draw_kinds(table: pd.DataFrame, path: Path) -> None:
    """Write what a step with AdamW holds at its peak, by kind, over the peak without checkpointing."""
    networks = by_variant(table)
    columns, rows = _grid(len(networks))
    figure = new_figure(max(_LEAST_WIDTH_IN, 2.3 * columns + 1.5), 1.5 * rows + 1.2)
    figure.suptitle("What a step with AdamW holds at its peak (unchecked: 100 %)", x=0.01, ha="left")
    for axes, (variant, ways) in zip(_panels(figure, rows, columns, len(networks)), networks.items(), strict=True):
        axes.set_title(variant, fontsize=9)
        _draw_stacks(axes, ways)
    known = [Patch(color=colour, label=kind.replace("_", " ")) for kind, colour in _KINDS.items()]
    figure.legend(handles=known, loc="outside lower center", ncols=len(known) if columns > 2 else 3)
    save_figure(figure, path)


def _draw_stacks(axes: Any, ways: Ways) -> None:
    """A bar per way, its parts in the order of the legend."""
    total = float(ways[UNCHECKED]["total_peak_bytes"])
    for height, way in enumerate(_BARS):
        start = 0.0
        for kind, colour in _KINDS.items():
            share = float(ways[way][f"{kind}_bytes"]) / total if way in ways else 0.0
            axes.barh(height, share, left=start, height=0.75, color=colour, linewidth=0)
            start += share
    axes.set_yticks(range(len(_BARS)), _BARS)
    axes.set(xlim=(0, 1), ylim=(len(_BARS) - 0.5, -0.5))
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axes.set_xticks((0, 0.5, 1))
