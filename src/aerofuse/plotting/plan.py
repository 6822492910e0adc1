"""A checkpointing plan as a chart: what each unit saves, and where the plan lies between memory and time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import altair as alt
import pandas as pd

from aerofuse.checkpointing.plan import CheckpointingPlan, StepPrediction
from aerofuse.checkpointing.steps import Offload, Recompute, SaveAll, SaveSome, Step, units_of
from aerofuse.plotting.chart import BLUE, GREEN, GREY, INK, ORANGE, VERMILLION, Chart, finish, write_picture

# From all that is saved to nothing but the input, and to that computed once for each use.
_COLOURS = {"saves all": BLUE, "saves some": "#8CC6E8", "saves its input": ORANGE, "no cache": VERMILLION}
_COLOURS_WITH_OFFLOAD = {"offloads all": GREEN} | _COLOURS


def draw_plan(plan: CheckpointingPlan, path: Path) -> None:
    """Write a PNG: a row of units per chain of several, below it the ranges that are computed again, and the curve."""
    charts = [
        _chain_chart(number, [unit.name for unit in units], chain.steps)
        for number, (units, chain) in enumerate(zip(plan.chains, plan.plans, strict=True), start=1)
        if len(units) > 1
    ]
    charts.append(_curve_chart(plan))
    write_picture(path, [[chart] for chart in charts], title=plan.summary(), width_px=760)


def _chain_chart(number: int, units: Sequence[str], steps: Sequence[Step]) -> Chart:
    # Linked units are one bar.
    bars = [(list(units_of([step])), _what_is_saved(step)) for step in _single_steps(steps)]
    table = pd.DataFrame(
        {"first": indices[0] + 0.05, "end": indices[-1] + 0.95, "saves": saves, "low": 0, "high": 1}
        for indices, saves in bars
    )
    ranges = pd.DataFrame(
        [(first + 0.1, end - 0.1, -0.35 * depth) for first, end, depth in _ranges(steps, 1)],
        columns=["first", "end", "depth"],
    )
    lowest = min(ranges["depth"], default=0) - 0.35
    named = range(0, len(units), -(-len(units) // 12))  # at most 12 units
    axis = alt.Axis(values=[unit + 0.5 for unit in named], labelExpr="datum.value - 0.5", grid=False)
    x = alt.X("first:Q", title=None, scale=alt.Scale(domain=[0, len(units)], nice=False), axis=axis)
    colours = _COLOURS_WITH_OFFLOAD if any(isinstance(step, Offload) for step in steps) else _COLOURS
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    colour = alt.Color("saves:N", scale=scale, legend=alt.Legend(orient="top", title=None))
    y = alt.Scale(domain=[lowest, 1.1], nice=False)
    layers: list[alt.Chart] = [
        alt.Chart(table)
        .mark_rect()
        .encode(x=x, x2="end:Q", y=alt.Y("low:Q", axis=None, scale=y), y2="high:Q", color=colour),
        alt.Chart(ranges).mark_rule(strokeWidth=2, color=INK).encode(x=x, x2="end:Q", y=alt.Y("depth:Q", scale=y)),
    ]
    title = f"units {units[0]} to {units[-1]}; lines: ranges that are computed again"
    said = ", ".join(f"{kind} {sum(saves == kind for _, saves in bars)}" for kind in colours)
    return finish(f"chain-{number}", title, f"{title}: {said}.", alt.layer(*layers), height=90)


def _what_is_saved(step: Step) -> str:
    if isinstance(step, SaveAll):
        return "saves all"
    if isinstance(step, Offload):
        return "offloads all"
    assert isinstance(step, SaveSome)
    if step.no_cache:
        return "no cache"
    return "saves its input" if step.save == () else "saves some"


def _single_steps(steps: Sequence[Step]) -> Iterator[Step]:
    for step in steps:
        if isinstance(step, Recompute):
            yield from _single_steps(step.steps)
        else:
            yield step


def _ranges(steps: Sequence[Step], depth: int) -> Iterator[tuple[int, int, int]]:
    """Yield first unit, end and depth of every range, those inside of others too."""
    for step in steps:
        if isinstance(step, Recompute):
            indices = list(units_of(step.steps))
            yield indices[0], indices[-1] + 1, depth
            yield from _ranges(step.steps, depth + 1)


def _curve_chart(plan: CheckpointingPlan) -> Chart:
    curve = sorted(plan.curve, key=lambda point: point.peak_bytes)
    marked = {"this plan": plan.predicted}
    if plan.predicted != plan.baseline:
        marked["no checkpointing"] = plan.baseline
    names = alt.Scale(domain=["this plan", "no checkpointing"], range=[VERMILLION, INK])
    x = alt.X("peak:Q", title="peak of the whole step, GiB", scale=alt.Scale(zero=False, padding=40))
    y = alt.Y("time:Q", title="time, ratio", scale=alt.Scale(zero=False, padding=24))
    points = alt.Chart(pd.DataFrame({"name": name} | _place(point) for name, point in marked.items())).encode(
        x=x, y=y, color=alt.Color("name:N", scale=names, legend=None)
    )
    layers: list[alt.Chart] = [
        alt.Chart(pd.DataFrame(map(_place, curve))).mark_line(color=GREY, strokeWidth=1.5).encode(x=x, y=y),
        points.mark_point(filled=True, size=70, opacity=1),
        points.mark_text(dy=-14).encode(text="name:N"),
    ]
    title = "what other budgets would take"
    return finish("curve", title, f"{title}: {len(curve)} plans.", alt.layer(*layers), height=190)


def _place(point: StepPrediction) -> dict[str, float]:
    return {"peak": point.peak_bytes / 2**30, "time": point.time_ratio}
