"""The models side by side, and how they learned."""

from __future__ import annotations

import math

import altair as alt
import pandas as pd

from aerofuse.comparison.comparison import Comparison
from aerofuse.plotting.charts import MODEL_COLOUR, MODEL_LEGEND, MODEL_SHAPE, QUIET, Chart, finish, rows
from aerofuse.plotting.learning_curves import join_phases
from aerofuse.plotting.wording import METRICS, MODELS, write_value
from aerofuse.report.sources import PageSources
from aerofuse.report.tables import write_interval
from aerofuse.report.verdict import MAIN_METRICS

_CURVES = {
    "train_loss": "training loss",
    "score": "validation score",
    "type_top1": "validation type top-1",
    "airline_top1": "validation airline top-1",
    "clarity_mae": "validation clarity MAE",
    "block_mae": "validation block MAE",
}


def interval_charts(comparison: Comparison) -> list[Chart]:
    """Per main metric every model with its interval, and for errors what a constant would reach."""
    return [_interval_chart(comparison, metric) for metric in MAIN_METRICS if _known(comparison, metric)]


def _known(comparison: Comparison, metric: str) -> bool:
    return any(metric in row.intervals for row in comparison.rows)


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
            "interval": write_interval(row.intervals[metric], unit),
        }
        for row in found
    )
    base = alt.Chart(rows(table)).encode(
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
        rule = alt.Chart(rows(line)).mark_rule(style=QUIET, strokeDash=[5, 3])
        layers.append(rule.encode(x="constant:Q", tooltip=alt.Tooltip("written:N", title=" ")))
        said += f"; a constant predictor {constant:.4f}"
        title += "; dashed: a constant"
    return finish(f"interval-{metric}", title, f"{name}: {said}.", alt.layer(*layers), height=44 * len(found))


def learning_charts(sources: PageSources) -> list[Chart]:
    """Every curve that was recorded, of all models over their epochs, the hybrid's phases marked."""
    joined = {model: join_phases(sources.history_of(model)) for model in MODELS}
    table = pd.concat([history.assign(model=MODELS[model]) for model, history in joined.items()])
    phases = _phases(joined["hybrid"])
    return [
        _learning_chart(table, phases, name, title)
        for name, title in _CURVES.items()
        if name in table and table[name].notna().any()
    ]


def _phases(history: pd.DataFrame) -> pd.DataFrame:
    """Where each phase of the hybrid begins and ends on the axis of epochs."""
    spans = history.groupby("phase", sort=False)["at"].agg(["min", "max"])
    return pd.DataFrame(
        {
            "phase": [f"phase {name}" for name in spans.index],
            "letter": list(spans.index),
            "start": spans["min"].to_numpy() - 0.5,
            "middle": (spans["min"].to_numpy() + spans["max"].to_numpy()) / 2,
        }
    )


def _learning_chart(table: pd.DataFrame, phases: pd.DataFrame, name: str, title: str) -> Chart:
    known = table.dropna(subset=[name])
    last = int(table["at"].max())
    shown = known[["model", "phase", "at", "epoch", "best", name]].rename(columns={name: "value"})
    epochs = alt.Axis(values=list(range(1, last + 1, max(1, math.ceil(last / 10)))), format="d", grid=False)
    base = alt.Chart(rows(shown)).encode(
        x=alt.X(
            "at:Q", title="epoch, over all phases", axis=epochs, scale=alt.Scale(domain=[0.5, last + 0.5], nice=False)
        ),
        y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)),
        color=MODEL_COLOUR,
    )
    marks = alt.Chart(phases)
    layers: list[alt.Chart] = [
        marks.mark_rule(style=QUIET, strokeDash=[4, 3]).encode(x="start:Q").transform_filter("datum.start > 0.5"),
        marks.mark_text(style=QUIET, baseline="bottom").encode(x="middle:Q", y=alt.value(-3), text="letter:N"),
        base.mark_line(strokeWidth=2),
        base.mark_point(filled=True, opacity=1).encode(
            shape=MODEL_SHAPE,
            size=alt.condition("datum.best", alt.value(110), alt.value(45)),
            tooltip=[
                alt.Tooltip("model:N"),
                alt.Tooltip("phase:N"),
                alt.Tooltip("epoch:Q"),
                alt.Tooltip("value:Q", title=title, format=".4f"),
                alt.Tooltip("best:N", title="best epoch of the phase"),
            ],
        ),
    ]
    ends = known.sort_values("at").groupby("model", sort=False)[name].agg(["first", "last"])
    said = "; ".join(f"{model} from {row['first']:.3f} to {row['last']:.3f}" for model, row in ends.iterrows())
    return finish(f"curve-{name}", title, f"{title}: {said}.", alt.layer(*layers), height=190, legend=MODEL_LEGEND)
