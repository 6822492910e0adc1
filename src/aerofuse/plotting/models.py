"""Charts of the models: their metrics with intervals, the gates, and what they cost in memory and time."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import altair as alt
import pandas as pd

from aerofuse.comparison.comparison import Comparison
from aerofuse.comparison.gates import GateResult
from aerofuse.comparison.times import MemoryRecord, TrainingTimes
from aerofuse.plotting.chart import (
    CONTRAST,
    GREY,
    MODEL_COLOUR,
    MODEL_SHAPE,
    QUIET,
    Chart,
    finish,
    in_rows,
    page_colours,
    write_picture,
)
from aerofuse.plotting.wording import (
    MAIN_METRICS,
    METRICS,
    MODELS,
    STAGES,
    write_bytes,
    write_duration,
    write_interval,
    write_threshold,
    write_value,
)

_STATUS_SHAPES = {"pass": "circle", "fail": "cross", "not measurable here": "square"}
_WIDTH_PX = 1000
# column: (where it stands, alignment)
_COLUMNS: Mapping[str, tuple[int, Literal["left", "right"]]] = {
    "status": (24, "left"),
    "gate": (170, "left"),
    "measured": (500, "right"),
    "threshold": (520, "left"),
    "note": (620, "left"),
}


def draw_comparison(comparison: Comparison, path: Path) -> None:
    """Write the picture: above, the models with their intervals per main metric; below, the hybrid's gates."""
    gates = gates_chart([gate for gate in comparison.gates if gate.model == "hybrid"])
    level = f"{comparison.settings.confidence_level:.0%}"
    title = f"Three models on {comparison.test_images} test images, with {level} confidence intervals"
    write_picture(path, [*in_rows(interval_charts(comparison), 2), [gates]], title=title, width_px=_WIDTH_PX)


def interval_charts(comparison: Comparison) -> list[Chart]:
    """Return a chart per main metric that was measured: every model with its interval, and the constant predictor."""
    return [
        _interval_chart(comparison, metric)
        for metric in MAIN_METRICS
        if any(metric in row.intervals for row in comparison.rows)
    ]


def _interval_chart(comparison: Comparison, metric: str) -> Chart:
    name, unit = METRICS[metric]
    scale = 100 if unit == "%" else 1
    found = [row for row in comparison.rows if metric in row.intervals]
    table = pd.DataFrame(
        {
            "model": MODELS[row.model],
            "value": scale * row.metrics[metric],
            "low": scale * row.intervals[metric].low,
            "high": scale * row.intervals[metric].high,
            "written": write_value(row.metrics[metric], unit),
            "interval": write_interval(row.intervals[metric].low, row.intervals[metric].high, unit),
        }
        for row in found
    )
    base = alt.Chart(table.round(4)).encode(
        y=alt.Y("model:N", sort=list(MODELS.values()), title=None),
        color=MODEL_COLOUR,
        tooltip=[alt.Tooltip("model:N"), alt.Tooltip("written:N", title=name), alt.Tooltip("interval:N")],
    )
    x = alt.Scale(zero=False, nice=True, padding=12)
    layers: list[alt.Chart] = [
        base.mark_rule(strokeWidth=3).encode(x=alt.X("low:Q", title=None, scale=x), x2="high:Q"),
        base.mark_point(filled=True, size=110, opacity=1).encode(x="value:Q", shape=MODEL_SHAPE),
        base.mark_text(dy=-14).encode(x="value:Q", text="written:N"),
    ]
    said = "; ".join(f"{row.model} {row.written} {row.interval}" for row in table.itertuples())
    title = f"{name}, {'%, more' if unit == '%' else 'less'} is better"
    constant = found[-1].metrics.get(f"{metric}_constant")
    if constant is not None:
        line = pd.DataFrame({"constant": [constant], "written": [f"constant predictor {constant:.3f}"]})
        rule = alt.Chart(line.round(4)).mark_rule(style=QUIET, strokeDash=[5, 3])
        layers.append(rule.encode(x="constant:Q", tooltip=alt.Tooltip("written:N", title=" ")))
        said += f"; a constant predictor {constant:.4f}"
        title += "; dashed: a constant"
    absent = [MODELS[row.model] for row in comparison.rows if row not in found]
    if absent:
        text = alt.Chart(pd.DataFrame({"model": absent, "why": "no such head"})).mark_text(style=QUIET)
        layers.append(text.encode(y=alt.Y("model:N", sort=list(MODELS.values())), x=alt.value(60), text="why:N"))
    images = int(found[-1].metrics[f"{metric.partition('_')[0]}_labelled"])
    return finish(
        f"interval-{metric}",
        title,
        f"{name}: {said}.",
        alt.layer(*layers),
        height=44 * len(comparison.rows),
        subtitle=f"{images} labelled images",
    )


def gates_chart(gates: Sequence[GateResult]) -> Chart:
    """Return the gates as a coloured row each: status, name, measured value, threshold, note."""
    table = pd.DataFrame(
        {
            "row": number,
            "status": gate.status,
            "gate": gate.name,
            "measured": write_value(gate.measured, gate.unit, signed=gate.unit == "points"),
            "threshold": f"{gate.direction} {write_threshold(gate.threshold, gate.unit)}",
            "note": textwrap.wrap(gate.note, 66, max_lines=2, placeholder=" ...") or [""],
        }
        for number, gate in enumerate(gates, start=1)
    )
    colours = page_colours("light")
    kinds = alt.Scale(domain=list(_STATUS_SHAPES), range=[colours["--pass"], colours["--fail"], colours["--not"]])
    colour = alt.Color("status:N", scale=kinds, legend=None)
    shapes = alt.Scale(domain=list(_STATUS_SHAPES), range=list(_STATUS_SHAPES.values()))
    shape = alt.Shape("status:N", scale=shapes, legend=None)
    y = alt.Y("row:O", axis=None, scale=alt.Scale(domain=list(range(len(gates) + 1))))
    base = alt.Chart(table).encode(y=y)
    layers: list[alt.Chart] = [
        base.mark_rect(opacity=0.1).encode(color=colour, x=alt.value(0), x2=alt.value(_WIDTH_PX)),
        base.mark_point(filled=True, size=50, opacity=1).encode(color=colour, shape=shape, x=alt.value(12)),
    ]
    for column, (at, align) in _COLUMNS.items():
        heading = alt.Chart(pd.DataFrame({"row": [0], "text": [column]})).mark_text(align=align, color=GREY)
        layers.append(heading.encode(y=y, x=alt.value(at), text="text:N"))
        text = base.mark_text(align=align, fontSize=10 if column == "note" else 12, lineBreak="\n")
        text = text.encode(x=alt.value(at), text=f"{column}:N")
        if column == "status":
            text = text.encode(color=colour)
        layers.append(text)
    said = "; ".join(f"{gate.name} {gate.status}" for gate in gates)
    height = 32 * (len(gates) + 1)
    title = "Gates of the hybrid"
    return finish("gates", title, f"{title}: {said}.", alt.layer(*layers), height=height, least_width_px=_WIDTH_PX)


def cost_charts(
    training: Mapping[str, TrainingTimes], memory: Mapping[str, MemoryRecord | None], comparison: Comparison
) -> list[Chart]:
    """Return recorded memory, training time and speed per stage, and latency and parameters per model."""
    models = {MODELS[row.model]: row.times for row in comparison.rows}
    latency = "latency at batch 1, ms: median, and 95th percentile as a line"
    medians = {
        model: (times.latency_ms, f"{times.latency_ms:.1f}, {times.latency_p95_ms:.1f}")
        for model, times in models.items()
    }
    millions = {model: times.parameters / 1e6 for model, times in models.items()}
    durations = {STAGES[stage]: (one.seconds / 60, write_duration(one.seconds)) for stage, one in training.items()}
    speeds = {STAGES[stage]: (one.images_per_second, f"{one.images_per_second:.0f}") for stage, one in training.items()}
    return [
        *_memory_chart(memory),
        _bars("training-time", "training time, minutes", durations),
        _bars("training-speed", "images trained per second", speeds),
        _bars("latency", latency, medians, [times.latency_p95_ms for times in models.values()]),
        _bars("parameters", "parameters, millions", {m: (value, f"{value:.2f}") for m, value in millions.items()}),
    ]


def _memory_chart(memory: Mapping[str, MemoryRecord | None]) -> list[Chart]:
    known = {stage: record for stage, record in memory.items() if record is not None}
    peaks = {stage: record.peak_bytes or record.predicted_peak_bytes for stage, record in known.items()}
    if not known:
        return []
    unit, per_unit = ("GB", 1e9) if max(peaks.values()) >= 1e9 else ("MB", 1e6)
    table = pd.DataFrame(
        {
            "stage": STAGES[stage],
            "model": STAGES[stage].partition(",")[0],
            "peak": None if record.peak_bytes is None else record.peak_bytes / per_unit,
            "predicted": record.predicted_peak_bytes / per_unit,
            "end": peaks[stage] / per_unit,
            "written": "not measured" if record.peak_bytes is None else write_bytes(record.peak_bytes),
            "written_prediction": write_bytes(record.predicted_peak_bytes),
            "measured": record.measured,
            "batch": record.batch_size,
        }
        for stage, record in known.items()
    )
    base = alt.Chart(table.round(3)).encode(
        y=alt.Y("stage:N", sort=list(STAGES.values()), title=None, axis=alt.Axis(labelLimit=130)),
        tooltip=[
            alt.Tooltip("stage:N"),
            alt.Tooltip("written:N", title="peak"),
            alt.Tooltip("written_prediction:N", title="predicted"),
            alt.Tooltip("measured:N", title="how"),
            alt.Tooltip("batch:Q", title="batch size"),
        ],
    )
    x = alt.Scale(domain=[0, 1.5 * max(max(table["end"]), max(table["predicted"]))], nice=False)
    layers: list[alt.Chart] = [
        base.mark_bar().encode(x=alt.X("peak:Q", title=None, scale=x), color=MODEL_COLOUR),
        base.mark_tick(style=CONTRAST, thickness=3, size=26).encode(x="predicted:Q"),
        base.mark_text(align="left", dx=6).encode(x="end:Q", text="written:N"),
    ]
    said = "; ".join(f"{row.stage} {row.written}, predicted {row.written_prediction}" for row in table.itertuples())
    title = f"peak memory of a step, {unit}; line: as predicted"
    return [finish("memory", title, f"{title}. {said}.", alt.layer(*layers), height=34 * len(table))]


def _bars(name: str, title: str, bars: Mapping[str, tuple[float, str]], lines: Sequence[float] | None = None) -> Chart:
    """Return a bar for each model or stage, of a length and with that text behind it; `lines` stand beyond the bars."""
    table = pd.DataFrame(
        {"label": label, "model": label.partition(",")[0], "value": value, "end": value, "written": written}
        for label, (value, written) in bars.items()
    )
    if lines is not None:
        table = table.assign(end=lines, high=lines)
    base = alt.Chart(table.round(3)).encode(
        y=alt.Y("label:N", sort=list(bars), title=None, axis=alt.Axis(labelLimit=130)),
        tooltip=[alt.Tooltip("label:N", title=" "), alt.Tooltip("written:N", title=title.partition(":")[0])],
    )
    x = alt.Scale(domain=[0, 1.5 * table["end"].max()], nice=False)
    layers: list[alt.Chart] = [
        base.mark_bar().encode(x=alt.X("value:Q", title=None, scale=x), color=MODEL_COLOUR),
        base.mark_text(align="left", dx=6).encode(x="end:Q", text="written:N"),
    ]
    if lines is not None:
        layers.append(base.mark_tick(style=CONTRAST, thickness=3, size=26).encode(x="high:Q"))
    said = "; ".join(f"{row.label} {row.written}" for row in table.itertuples())
    return finish(name, title, f"{title}: {said}.", alt.layer(*layers), height=34 * len(table))
