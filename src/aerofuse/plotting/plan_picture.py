"""A checkpointing plan as a picture: what each unit saves, and where the plan lies between memory and time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from aerofuse.checkpointing.plan import CheckpointingPlan, StepPrediction
from aerofuse.checkpointing.steps import Recompute, SaveAll, Step, units_of
from aerofuse.plotting.style import BLUE, GREY, INK, ORANGE, PALE, VERMILLION, new_figure, save_figure, styled

_BYTES_PER_GIB = 2**30
# From all that is saved to nothing but the input, and to that computed once for each use.
_COLOURS = {"saves all": BLUE, "saves some": "#8CC6E8", "saves its input": ORANGE, "no cache": VERMILLION}
_UNIT_NAMES = 12  # at most so many of a chain's units are named


@styled
def draw_plan(plan: CheckpointingPlan, path: Path) -> None:
    """Write the picture as PNG: a row of units per chain, ranges that are computed again below it, and the curve."""
    figure = new_figure(9.6, 3.2 + 1.5 * len(plan.parts))
    figure.suptitle(plan.summary(), x=0.01, ha="left", fontsize=10)
    heights = [*(1.5 for _ in plan.parts), 2.6]
    panels = figure.subplots(len(heights), 1, height_ratios=heights)
    for axes, (name, part) in zip(panels, plan.parts.items(), strict=False):
        _draw_chain(axes, name, plan.units[name], part.plan.steps)
    figure.legend(
        handles=[Patch(color=colour, label=label) for label, colour in _COLOURS.items()]
        + [Line2D([], [], color=INK, linewidth=1.5, label="range computed again")],
        loc="outside lower center",
        ncols=len(_COLOURS) + 1,
    )
    _draw_curve(panels[-1], plan)
    save_figure(figure, path)


def _draw_chain(axes: Any, name: str, units: Sequence[str], steps: Sequence[Step]) -> None:
    for step, _ in _single_steps(steps, 0):
        units_of_step = list(units_of([step]))
        # Linked units are one bar.
        axes.add_patch(
            Rectangle((units_of_step[0] + 0.05, 0), len(units_of_step) - 0.1, 1, color=_COLOURS[_what_is_saved(step)])
        )
    deepest = 0
    for first, end, depth in _ranges(steps, 1):
        axes.plot([first + 0.1, end - 0.1], [-0.35 * depth] * 2, color=INK, linewidth=1.5, solid_capstyle="butt")
        deepest = max(deepest, depth)
    axes.set_xlim(0, len(units))
    axes.set_ylim(-0.35 * (deepest + 1), 1.1)
    every = -(-len(units) // _UNIT_NAMES)
    axes.set_xticks([unit + 0.5 for unit in range(0, len(units), every)])
    axes.set_xticklabels([str(unit) for unit in range(0, len(units), every)])
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_title(f"{name + ': ' if name else ''}units {units[0]} to {units[-1]}", fontsize=9)


def _what_is_saved(step: Step) -> str:
    if isinstance(step, SaveAll):
        return "saves all"
    assert not isinstance(step, Recompute)
    if step.no_cache:
        return "no cache"
    return "saves its input" if step.save == () else "saves some"


def _single_steps(steps: Sequence[Step], depth: int) -> Iterator[tuple[Step, int]]:
    for step in steps:
        if isinstance(step, Recompute):
            yield from _single_steps(step.steps, depth + 1)
        else:
            yield step, depth


def _ranges(steps: Sequence[Step], depth: int) -> Iterator[tuple[int, int, int]]:
    """First unit, end and depth of every range, those inside of others too."""
    for step in steps:
        if isinstance(step, Recompute):
            indices = list(units_of(step.steps))
            yield indices[0], indices[-1] + 1, depth
            yield from _ranges(step.steps, depth + 1)


def _draw_curve(axes: Any, plan: CheckpointingPlan) -> None:
    curve = sorted(plan.curve, key=lambda point: point.peak_bytes)
    axes.plot([_gib(point) for point in curve], [point.time_ratio for point in curve], color=GREY, linewidth=1.5)
    points = [(plan.predicted, "this plan", VERMILLION)]
    if plan.predicted != plan.baseline:
        points.append((plan.baseline, "no checkpointing", INK))
    for point, label, colour in points:
        axes.plot(_gib(point), point.time_ratio, "o", color=colour, markersize=7)
        axes.annotate(label, (_gib(point), point.time_ratio), xytext=(0, 8), textcoords="offset points", ha="center")
    axes.axhline(1, color=PALE, zorder=0)
    axes.margins(x=0.08, y=0.25)
    axes.set_xlabel("peak of the whole step, GiB")
    axes.set_ylabel("time, ratio")


def _gib(point: StepPrediction) -> float:
    return point.peak_bytes / _BYTES_PER_GIB
