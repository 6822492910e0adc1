"""The comparison as one picture: the models with their intervals, and the gates."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aerofuse.comparison.comparison import Comparison
from aerofuse.comparison.gates import GateResult
from aerofuse.plotting.style import (
    GREY,
    INK,
    MODEL_COLOURS,
    STATUS_COLOURS,
    VERMILLION,
    new_figure,
    save_figure,
    styled,
)
from aerofuse.plotting.wording import METRICS, MODELS, write_threshold, write_value

_SIGNS = {"pass": "✓", "fail": "✗", "not measurable here": "○"}
_GATE_X, _MEASURED_X, _THRESHOLD_X, _NOTE_X = 0.165, 0.515, 0.535, 0.635  # columns, as shares of the width
_NOTE_CHARACTERS = 64  # of a line
_PANELS = ("type_top1", "airline_top1", "clarity_mae", "block_mae")


@styled
def draw_comparison(comparison: Comparison, path: Path) -> None:
    """Write the picture: per main metric a dot with its interval for each model; below, the hybrid's gates."""
    gates = [gate for gate in comparison.gates if gate.model == "hybrid"]
    metrics_in, gates_in = 2.7, 0.36 * (len(gates) + 1.8)
    figure = new_figure(11, metrics_in + gates_in + 0.6)
    level = f"{comparison.settings.confidence_level:.0%}"
    title = f"Three models on {comparison.test_images} test images, with {level} confidence intervals"
    figure.suptitle(title, x=0.01, ha="left")
    top, bottom = figure.subfigures(2, 1, height_ratios=[metrics_in, gates_in])
    for column, (axes, metric) in enumerate(zip(top.subplots(1, len(_PANELS)), _PANELS, strict=True)):
        _draw_metric(axes, comparison, metric)
        if column:
            axes.tick_params(labelleft=False)
    _draw_gates(bottom.add_subplot(), gates)
    save_figure(figure, path)


def _draw_metric(axes: Any, comparison: Comparison, metric: str) -> None:
    name, unit = METRICS[metric]
    scale = 100 if unit == "%" else 1
    axes.margins(x=0.25)
    for height, row in enumerate(reversed(comparison.rows)):
        value, interval = row.metrics.get(metric), row.intervals.get(metric)
        if value is None or interval is None:
            has_head = f"{metric.partition('_')[0]}_labelled" in row.metrics
            why, across = "no test labels" if has_head else "no such head", axes.get_yaxis_transform()
            axes.text(0.5, height, why, transform=across, ha="center", va="bottom", color=GREY, fontsize=9)
            continue
        ends = [scale * interval.low, scale * interval.high]
        axes.plot(ends, [height, height], "|-", color=MODEL_COLOURS[row.model], linewidth=2, markersize=12)
        axes.plot(scale * value, height, "o", color=MODEL_COLOURS[row.model], markersize=6)
        text = f"{scale * value:.1f} %" if unit == "%" else f"{value:.3f}"
        above = {"xytext": (0, 9), "textcoords": "offset points"}
        axes.annotate(text, (scale * value, height), ha="center", color=INK, fontsize=9, **above)
    constant = comparison.rows[-1].metrics.get(f"{metric}_constant")
    better = "more is better" if unit == "%" else "less is better"
    if constant is not None:
        axes.axvline(constant, color=VERMILLION, linewidth=1.5, linestyle=(0, (4, 2)))
        axes.set_xlim(0, max(axes.get_xlim()[1], 1.08 * constant))
        better += "; dashed: constant predictor"
    axes.set_yticks(range(len(comparison.rows)), [MODELS[row.model] for row in reversed(comparison.rows)])
    axes.set_ylim(-0.5, len(comparison.rows) - 0.25)
    axes.set_title(f"{name}, %" if unit == "%" else name)
    counted = f"{metric.partition('_')[0]}_labelled"
    labelled = [row.metrics[counted] for row in comparison.rows if counted in row.metrics]
    of = f"{labelled[0]:.0f} labelled images\n" if labelled else ""
    axes.set_xlabel(f"{of}{better}", fontsize=8, color=GREY)


def _draw_gates(axes: Any, gates: Sequence[GateResult]) -> None:
    """A coloured row per gate: status, name, measured value, threshold, note."""
    axes.axis("off")
    axes.set(xlim=(0, 1), ylim=(len(gates) + 0.5, -0.4))
    axes.set_title("Gates of the hybrid")
    headings = {_GATE_X: "gate", _THRESHOLD_X: "threshold", _NOTE_X: "note"}
    for x, heading in headings.items():
        axes.text(x, 0, heading, va="center", color=GREY, fontsize=9)
    axes.text(_MEASURED_X, 0, "measured", va="center", ha="right", color=GREY, fontsize=9)
    for height, gate in enumerate(gates, start=1):
        colour = STATUS_COLOURS[gate.status]
        axes.axhspan(height - 0.46, height + 0.46, color=colour, alpha=0.1, linewidth=0)
        status = f"{_SIGNS[gate.status]} {gate.status}"
        axes.text(0.005, height, status, va="center", color=colour, fontweight="bold", fontsize=9)
        axes.text(_GATE_X, height, gate.name, va="center")
        measured = write_value(gate.measured, gate.unit, signed=gate.unit == "points")
        axes.text(_MEASURED_X, height, measured, va="center", ha="right")
        threshold = f"{gate.direction} {write_threshold(gate.threshold, gate.unit)}"
        axes.text(_THRESHOLD_X, height, threshold, va="center")
        note = "\n".join(textwrap.wrap(gate.note, _NOTE_CHARACTERS, max_lines=2, placeholder=" ..."))
        axes.text(_NOTE_X, height, note, va="center", fontsize=8)
