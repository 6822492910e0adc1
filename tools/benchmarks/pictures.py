"""What the benchmark of gradient checkpointing measured, as charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import altair as alt
import pandas as pd

from aerofuse.plotting.chart import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PALE,
    VERMILLION,
    Chart,
    finish,
    in_rows,
    write_picture,
)
from tools.benchmarks.rows import (
    AT_HALF,
    AT_SWITCH,
    BASELINE,
    LEAST,
    PLANNED,
    PROMISED,
    RECOMPUTE_ALL,
    SEGMENTS,
    SWITCH,
    Ways,
    by_variant,
)

# group of ways: (its ways, shape, colour)
_GROUPS = {
    "planned, measured": (PLANNED, "circle", BLUE),
    SWITCH: ((SWITCH,), "square", ORANGE),
    SEGMENTS: ((SEGMENTS,), "triangle-up", GREEN),
    RECOMPUTE_ALL: ((RECOMPUTE_ALL,), "diamond", VERMILLION),
}
_LOWEST, _HIGHEST = 0.95, 1.75  # times shown; a time beyond stands at the edge, with its number
_COLUMNS = 5
_PANEL_PX, _GAP_PX = 150, 40
_LEAST_WIDTH_PX = 720  # for the title and the legend
_KINDS = {
    "parameters": GREY,
    "optimizer_state": "#bbbbbb",
    "gradients": GREEN,
    "inputs": INK,
    "activations": BLUE,
    "temporaries": ORANGE,
}
_BARS = (BASELINE, SWITCH, AT_SWITCH, AT_HALF, LEAST)


def draw_frontiers(table: pd.DataFrame, curves: Mapping[str, Sequence[tuple[float, float]]], path: Path) -> None:
    """Write memory against time, a chart per network: the planner's curve, and what was measured.

    `curves` holds points of memory and time by network, both over those without checkpointing. Bars are quartiles.
    Raises `ValueError` where no network was timed.
    """
    networks = by_variant(table)
    shown = [row["time_ratio"] for ways in networks.values() for way, row in ways.items() if _group_of(way)]
    highest = max(1.25, min(max(shown, default=1), _HIGHEST) + 0.06)
    charts = [_frontier_chart(name, ways, curves.get(name, ()), highest) for name, ways in networks.items()]
    title = "Time of a step against peak of activations and temporaries, over those without checkpointing"
    _write(path, charts, title)


def _write(path: Path, charts: Sequence[Chart], title: str) -> None:
    if not charts:
        raise ValueError("the table has no network whose steps were timed")
    columns = min(_COLUMNS, len(charts))
    width = max(_LEAST_WIDTH_PX, columns * _PANEL_PX + (columns - 1) * _GAP_PX)
    write_picture(path, in_rows(charts, columns), title=title, width_px=width, shared_legend=True)


def _group_of(way: str) -> str | None:
    return next((group for group, (ways, _, _) in _GROUPS.items() if way in ways), None)


def _group_encodings(groups: Sequence[str]) -> tuple[alt.Color, alt.Shape]:
    legend = alt.Legend(orient="bottom", title=None)
    colours = alt.Scale(domain=groups, range=[_GROUPS[group][2] for group in groups])
    shapes = alt.Scale(domain=groups, range=[_GROUPS[group][1] for group in groups])
    return alt.Color("group:N", scale=colours, legend=legend), alt.Shape("group:N", scale=shapes, legend=legend)


def _frontier_chart(name: str, ways: Ways, curve: Sequence[tuple[float, float]], highest: float) -> Chart:
    measured = pd.DataFrame(
        {
            "group": group,
            "memory": float(row["peak_ratio"]),
            "time": _within(row["time_ratio"]),
            "low": _within(row["time_ratio_low"]),
            "high": _within(row["time_ratio_high"]),
            "beyond": "" if _within(row["time_ratio"]) == row["time_ratio"] else f"{row['time_ratio']:.2f}",
        }
        for way, row in ways.items()
        if (group := _group_of(way))
    )
    percent = alt.Axis(format=".0%", values=[0.25, 0.5, 0.75, 1])
    x = alt.X("memory:Q", title="memory", scale=alt.Scale(domain=[0, 1.06], nice=False), axis=percent)
    y = alt.Y("time:Q", title="time", scale=alt.Scale(domain=[_LOWEST - 0.02, highest], nice=False))
    line = pd.DataFrame(list(curve), columns=["memory", "time"])
    colour, shape = _group_encodings(list(_GROUPS))
    base = alt.Chart(measured).encode(x=x, y=y, color=colour)
    layers: list[alt.Chart] = [
        # Between two plans the lower one is what a budget gets.
        alt.Chart(line).mark_line(interpolate="step-after", color=BLUE, strokeWidth=1.5, clip=True).encode(x=x, y=y),
        base.transform_filter("datum.beyond == ''").mark_rule().encode(y=alt.Y("low:Q"), y2="high:Q"),
        base.mark_point(filled=True, size=50, opacity=1).encode(shape=shape),
        base.mark_text(align="left", dx=7).encode(text="beyond:N"),
    ]
    said = f"{name}: measured times and memory of {len(measured)} ways, and the curve of {len(curve)} plans."
    return finish(f"frontier-{name}", name, said, alt.layer(*layers), height=130)


def _within(time: float) -> float:
    return min(max(float(time), _LOWEST), _HIGHEST)


def draw_promises(table: pd.DataFrame, path: Path) -> None:
    """Write, per family, the saving that the replaced system promised as a bar, and those that were measured."""
    networks = {name: ways for name, ways in by_variant(table).items() if ways[BASELINE]["family"] in PROMISED}
    promised = pd.DataFrame(
        {"network": name, "low": low, "high": high}
        for name, ways in networks.items()
        for low, high in [PROMISED[ways[BASELINE]["family"]]]
    )
    measured = pd.DataFrame(
        {"network": name, "group": _group_of(way), "saved": 1 - float(ways[way]["peak_ratio"])}
        for name, ways in networks.items()
        for way in (RECOMPUTE_ALL, SWITCH, LEAST)
        if way in ways
    )
    scale, percent = alt.Scale(domain=[0, 1]), alt.Axis(format=".0%")
    y = alt.Y("network:N", sort=list(networks), title=None, axis=alt.Axis(labelLimit=240))
    colour, shape = _group_encodings([RECOMPUTE_ALL, SWITCH, "planned, measured"])
    layers: list[alt.Chart] = [
        alt.Chart(promised)
        .mark_bar(color=PALE, stroke=GREY, strokeWidth=0.6, height=18)
        .encode(
            x=alt.X("low:Q", scale=scale, axis=percent, title="activations and temporaries saved at the peak"),
            x2="high:Q",
            y=y,
        ),
        alt.Chart(measured)
        .mark_point(filled=True, size=80, opacity=1)
        .encode(x=alt.X("saved:Q", scale=scale), y=y, color=colour, shape=shape),
    ]
    title = f"Saving promised (bars), and measured; planned: {LEAST}"
    chart = finish(
        "promises", title, f"{title}, of {len(networks)} networks.", alt.layer(*layers), height=28 * len(networks)
    )
    write_picture(path, [[chart]])


def draw_kinds(table: pd.DataFrame, path: Path) -> None:
    """Write what a step with AdamW holds at its peak, by kind, over the peak without checkpointing."""
    charts = [
        _kinds_chart(name, ways, named=number % _COLUMNS == 0)
        for number, (name, ways) in enumerate(by_variant(table).items())
    ]
    _write(path, charts, f"What a step with AdamW holds at its peak ({BASELINE}: 100 %)")


def _kinds_chart(name: str, ways: Ways, *, named: bool) -> Chart:
    """Return a bar per way, which are `named` in the first chart of a row."""
    total = float(ways[BASELINE]["total_peak_bytes"])
    table = pd.DataFrame(
        {
            "way": way,
            "kind": kind.replace("_", " "),
            "share": float(ways[way][f"{kind}_bytes"]) / total if way in ways else 0.0,
            "order": order,
        }
        for way in _BARS
        for order, kind in enumerate(_KINDS)
    )
    colours = alt.Scale(domain=[kind.replace("_", " ") for kind in _KINDS], range=list(_KINDS.values()))
    chart = (
        alt.Chart(table)
        .mark_bar()
        .encode(
            x=alt.X(
                "share:Q", title=None, scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format=".0%", values=[0, 0.5, 1])
            ),
            y=alt.Y("way:N", sort=list(_BARS), title=None, axis=alt.Axis(labelLimit=200, labels=named)),
            color=alt.Color("kind:N", scale=colours, legend=alt.Legend(orient="bottom", title=None)),
            order="order:Q",
        )
    )
    return finish(f"kinds-{name}", name, f"{name}: memory of {len(_BARS)} ways by kind.", chart, height=90)
