"""What the models cost: memory and time of training, time of an answer, parameters."""

from __future__ import annotations

import altair as alt
import pandas as pd

from aerofuse.comparison.comparison import Comparison
from aerofuse.plotting.charts import CONTRAST, MODEL_COLOUR, Chart, finish, rows
from aerofuse.plotting.wording import MODELS, STAGES, write_bytes, write_duration
from aerofuse.report.sources import PageSources


def cost_charts(sources: PageSources) -> list[Chart]:
    """Memory where it was recorded, training time and speed per stage; latency and parameters per model."""
    training = sources.training
    durations = {stage: (times.seconds / 60, write_duration(times.seconds)) for stage, times in training.items()}
    speeds = {stage: (times.images_per_second, f"{times.images_per_second:.0f}") for stage, times in training.items()}
    return [
        *_memory_chart(sources),
        _stage_bars("training-time", "training time, minutes", durations),
        _stage_bars("training-speed", "images trained per second", speeds),
        *_model_bars(sources.comparison),
    ]


def _memory_chart(sources: PageSources) -> list[Chart]:
    known = {stage: record for stage, record in sources.memory.items() if record is not None}
    peaks = {stage: record.peak_bytes or record.predicted_peak_bytes for stage, record in known.items()}
    if not known:
        return []
    unit, per_unit = ("GB", 1e9) if max(peaks.values()) >= 1e9 else ("MB", 1e6)
    table = pd.DataFrame(
        {
            "stage": STAGES[stage],
            "model": _model_of(stage),
            "peak": None if record.peak_bytes is None else record.peak_bytes / per_unit,
            "predicted": record.predicted_peak_bytes / per_unit,
            "end": peaks[stage] / per_unit,
            "written": "not measured" if record.peak_bytes is None else write_bytes(record.peak_bytes),
            "foretold": write_bytes(record.predicted_peak_bytes),
            "measured": record.measured,
            "batch": record.batch_size,
        }
        for stage, record in known.items()
    )
    base = alt.Chart(rows(table, 3)).encode(
        y=alt.Y("stage:N", sort=list(STAGES.values()), title=None, axis=alt.Axis(labelLimit=130)),
        tooltip=[
            alt.Tooltip("stage:N"),
            alt.Tooltip("written:N", title="peak"),
            alt.Tooltip("foretold:N", title="predicted"),
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
    said = "; ".join(f"{row.stage} {row.written}, predicted {row.foretold}" for row in table.itertuples())
    title = f"peak memory of a step, {unit}; line: as predicted"
    return [finish("memory", title, f"{title}. {said}.", alt.layer(*layers), height=34 * len(table))]


def _model_of(stage: str) -> str:
    return STAGES[stage].partition(",")[0]


def _stage_bars(name: str, title: str, values: dict[str, tuple[float, str]]) -> Chart:
    table = pd.DataFrame(
        {"label": STAGES[stage], "model": _model_of(stage), "value": value, "end": value, "written": written}
        for stage, (value, written) in values.items()
    )
    return _bars(name, title, table, list(STAGES.values()))


def _model_bars(comparison: Comparison) -> list[Chart]:
    latency = pd.DataFrame(
        {
            "label": MODELS[row.model],
            "model": MODELS[row.model],
            "value": row.times.latency_ms,
            "high": row.times.latency_p95_ms,
            "end": row.times.latency_p95_ms,
            "written": f"{row.times.latency_ms:.1f}, {row.times.latency_p95_ms:.1f}",
        }
        for row in comparison.rows
    )
    parameters = pd.DataFrame(
        {
            "label": MODELS[row.model],
            "model": MODELS[row.model],
            "value": row.times.parameters / 1e6,
            "end": row.times.parameters / 1e6,
            "written": f"{row.times.parameters / 1e6:.2f}",
        }
        for row in comparison.rows
    )
    order = list(MODELS.values())
    return [
        _bars("latency", "latency at batch 1, ms: median, and 95th percentile as a line", latency, order),
        _bars("parameters", "parameters, millions", parameters, order),
    ]


def _bars(name: str, title: str, table: pd.DataFrame, order: list[str]) -> Chart:
    """A bar per row; `end` is where its number stands, `high`, if there is one, a line beyond it."""
    base = alt.Chart(rows(table, 3)).encode(
        y=alt.Y("label:N", sort=order, title=None, axis=alt.Axis(labelLimit=130)),
        tooltip=[alt.Tooltip("label:N", title=" "), alt.Tooltip("written:N", title=title.partition(":")[0])],
    )
    x = alt.Scale(domain=[0, 1.5 * table["end"].max()], nice=False)
    layers: list[alt.Chart] = [
        base.mark_bar().encode(x=alt.X("value:Q", title=None, scale=x), color=MODEL_COLOUR),
        base.mark_text(align="left", dx=6).encode(x="end:Q", text="written:N"),
    ]
    if "high" in table:
        layers.append(base.mark_tick(style=CONTRAST, thickness=3, size=26).encode(x="high:Q"))
    said = "; ".join(f"{row.label} {row.written}" for row in table.itertuples())
    return finish(name, title, f"{title}: {said}.", alt.layer(*layers), height=34 * len(table))
