"""Charts of predictions against labels: types, confidences, clarity and block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import altair as alt
import numpy as np
import pandas as pd

from aerofuse.data.labels import CLASSIFICATION_TASKS, REGRESSION_TASKS
from aerofuse.metrics.confusion import confused_pairs, confusion_counts
from aerofuse.metrics.reliability import accuracy_by_clarity, mean_over_images, reliability_bins
from aerofuse.plotting.chart import (
    MODEL_COLOUR,
    MODEL_LEGEND,
    MODEL_SHAPE,
    ON_DEEP,
    ON_PALE,
    QUIET,
    SECOND_PALETTE,
    Chart,
    finish,
    write_picture,
)
from aerofuse.plotting.wording import MODELS, write_value

_POINTS = 3000  # of a scatter plot; more would hide each other
_PAIR_WIDTH_PX = 720  # of two charts in a row
_ENDS = {"clarity": "0 blurred, 1 sharp", "block": "0 fully visible, 1 fully hidden"}


def draw_answers(
    predictions: pd.DataFrame, names: Sequence[str], metrics: Mapping[str, float], model: str, folder: Path
) -> None:
    """Write `confusion.png`, `reliability.png` and, for a model with such heads, `regression.png` to `folder`.

    `predictions` is a table of `aerofuse.metrics.predictions`, `names` all types in order, `metrics` those of `model`,
    which is a key of `MODELS`.
    """
    confusion = confusion_chart(predictions, names, model)
    write_picture(folder / "confusion.png", [[confusion]], width_px=confusion.spec["height"])
    for kind, draw, possible in (
        ("reliability", reliability_chart, CLASSIFICATION_TASKS),
        ("regression", regression_chart, REGRESSION_TASKS),
    ):
        charts = [draw(predictions, task, model, metrics) for task in possible if task in predictions]
        if charts:
            write_picture(folder / f"{kind}.png", [charts], width_px=_PAIR_WIDTH_PX * len(charts) // 2)


def confusion_chart(predictions: pd.DataFrame, names: Sequence[str], model: str) -> Chart:
    """Return true types in rows and predicted types in columns, as shares of the images of each true type.

    A type without a labelled image has an empty row.
    """
    counts = confusion_counts(predictions, names)
    images = counts.sum(axis=1)
    true, predicted = np.nonzero(counts)
    table = pd.DataFrame(
        {
            "true": [names[row] for row in true.tolist()],
            "predicted": [names[column] for column in predicted.tolist()],
            "images": counts[true, predicted],
            "share": counts[true, predicted] / images[true],
        }
    )
    few = len(names) <= 20
    cell = 30 if few else 11
    labels = alt.Axis(labelLimit=130, labelOverlap=False, labelFontSize=12 if few else 9, ticks=False, domain=False)
    base = alt.Chart(table.round(4)).encode(
        x=alt.X("predicted:N", sort=names, scale=alt.Scale(domain=names), axis=labels, title="predicted type"),
        y=alt.Y("true:N", sort=names, scale=alt.Scale(domain=names), axis=labels, title="true type"),
    )
    # The colour scale is stretched where shares are small, so that a few confusions in a hundred stay visible.
    stretched = alt.Scale(type="pow", exponent=0.6, domain=[0, 1], range="heatmap")
    layers: list[alt.Chart] = [
        base.mark_rect().encode(
            color=alt.Color("share:Q", scale=stretched, legend=None),
            tooltip=[
                alt.Tooltip("true:N"),
                alt.Tooltip("predicted:N"),
                alt.Tooltip("images:Q"),
                alt.Tooltip("share:Q", format=".1%", title="of the true type"),
            ],
        )
    ]
    if few:
        percent = base.transform_calculate(percent="round(100 * datum.share)")
        for style, condition in ((ON_DEEP, "datum.share > 0.35"), (ON_PALE, "datum.share <= 0.35")):
            text = percent.transform_filter(f"{condition} && datum.share >= 0.005")
            layers.append(text.mark_text(style=style, fontSize=11).encode(text="percent:Q"))
    total = int(counts.sum())
    title = f"{MODELS[model]}: no test image has a type label"
    described = f"Empty confusion matrix of the {MODELS[model]} model: no test image has a type label."
    if total:
        shown = ", in % of the images of each true type" if few else ""
        title = f"{MODELS[model]}: {np.trace(counts) / total:.1%} of {total} types right{shown}"
        pairs = "; ".join(
            f"{one} and {other} {count}" for one, other, count, *_ in confused_pairs(predictions).rows[:3]
        )
        described = (
            f"Confusion matrix of the {MODELS[model]} model over {len(names)} types. Confused most often: {pairs}."
        )
    return finish(
        f"confusion-{model}",
        title,
        described,
        alt.layer(*layers),
        height=cell * len(names),
        least_width_px=0 if few else 140 + cell * len(names),
        on_canvas=not few,
    )


def clarity_chart(predictions: Mapping[str, pd.DataFrame]) -> Chart | None:
    """Return the accuracy of the type against how sharp the photos are, of all models; `None` without labels.

    The tables are of the same images in the same order.
    """
    clarity = next((table["clarity"] for table in predictions.values() if "clarity" in table), None)
    if clarity is None:
        return None
    parts = [accuracy_by_clarity(table, clarity).assign(model=MODELS[model]) for model, table in predictions.items()]
    table = pd.concat(parts, ignore_index=True)
    if table.empty:
        return None
    # Beside each other: the intervals would hide each other.
    table["at"] = table["clarity"] + table["model"].map({name: 0.012 * n for n, name in enumerate(MODELS.values(), -1)})
    y = alt.Scale(zero=False, nice=True)
    base = alt.Chart(table.round(4)).encode(
        x=alt.X("at:Q", scale=alt.Scale(domain=[0, 1]), title="clarity of the photo, 0 blurred, 1 sharp"),
        color=MODEL_COLOUR,
        tooltip=[
            alt.Tooltip("model:N"),
            alt.Tooltip("clarity:Q", format=".2f"),
            alt.Tooltip("accuracy:Q", format=".1%", title="type top-1"),
            alt.Tooltip("images:Q"),
        ],
    )
    accuracy = alt.Y("accuracy:Q", scale=y, title=None, axis=alt.Axis(format=".0%", tickCount=6))
    layers: list[alt.Chart] = [
        base.mark_rule(opacity=0.5).encode(y=alt.Y("low:Q", scale=y, title=None), y2="high:Q"),
        base.mark_line(strokeWidth=1.5).encode(y=accuracy),
        base.mark_point(filled=True, size=60, opacity=1).encode(y=accuracy, shape=MODEL_SHAPE),
    ]
    said = "; ".join(
        f"{name} {part['accuracy'].iloc[0]:.1%} at {part['clarity'].iloc[0]:.2f} to {part['accuracy'].iloc[-1]:.1%} "
        f"at {part['clarity'].iloc[-1]:.2f}"
        for name, part in table.groupby("model", sort=False)
    )
    title = "type top-1 against clarity, in tenths, with 95 % intervals"
    chart = alt.layer(*layers)
    return finish("accuracy-by-clarity", title, f"{title}: {said}.", chart, height=260, subtitle=MODEL_LEGEND)


def reliability_chart(predictions: pd.DataFrame, task: str, model: str, metrics: Mapping[str, float]) -> Chart:
    """Return the share of right answers against the confidence; on the diagonal both are the same.

    `metrics` holds `{task}_ece` and `{task}_ece_uncalibrated` where the task has labels.
    """
    bins = reliability_bins(predictions, task)
    kinds = list(bins["kind"].unique())
    x = alt.Scale(domain=[0, 1])
    legend = alt.Legend(orient="top", title=None)
    base = alt.Chart(bins.round(4)).encode(
        x=alt.X("confidence:Q", scale=x, title="mean confidence", axis=alt.Axis(format=".0%", tickCount=5)),
        y=alt.Y("accuracy:Q", scale=x, title="share that is right", axis=alt.Axis(format=".0%", tickCount=5)),
        color=alt.Color("kind:N", scale=alt.Scale(domain=kinds, range=SECOND_PALETTE), legend=legend),
    )
    layers: list[alt.Chart] = [
        _identity("confidence", "accuracy"),
        base.mark_line(strokeWidth=1, opacity=0.5),
        base.mark_rule(strokeWidth=1.5, opacity=0.6).encode(y="low:Q", y2="high:Q"),
        base.mark_point(filled=True, opacity=0.9).encode(
            size=alt.Size("images:Q", legend=None, scale=alt.Scale(range=[25, 350], zero=True)),
            shape=alt.Shape("kind:N", scale=alt.Scale(domain=kinds, range=["circle", "diamond"]), legend=legend),
            tooltip=[
                alt.Tooltip("kind:N", title=" "),
                alt.Tooltip("images:Q"),
                alt.Tooltip("confidence:Q", format=".1%"),
                alt.Tooltip("accuracy:Q", format=".1%", title="right"),
                alt.Tooltip("low:Q", format=".1%", title="from"),
                alt.Tooltip("high:Q", format=".1%", title="to"),
            ],
        ),
    ]
    said = "; ".join(
        f"{kind}: of {part['images'].sum()} images {mean_over_images(part, 'accuracy'):.1%} are right at a mean "
        f"confidence of {mean_over_images(part, 'confidence'):.1%}"
        for kind, part in bins.groupby("kind")
    )
    errors = [write_value(metrics.get(f"{task}_ece{suffix}"), "%") for suffix in ("", "_uncalibrated")]
    return finish(
        f"reliability-{task}-{model}",
        f"{MODELS[model]}, {task}",
        f"Reliability of {task}, {MODELS[model]} model. {said or _no_label(task)}.",
        alt.layer(*layers) if kinds else layers[0],
        height=260,
        subtitle=f"ECE {errors[0]}, before calibration {errors[1]}" if kinds else _no_label(task),
    )


def regression_chart(predictions: pd.DataFrame, task: str, model: str, metrics: Mapping[str, float]) -> Chart:
    """Return predicted against true values, a point per photo, with the line where both are the same.

    `metrics` holds `{task}_mae`, and where they are defined `{task}_mae_constant` and `{task}_plcc`.
    """
    known = predictions.dropna(subset=[task])
    # Evenly over the table, whose order does not depend on the values.
    shown = known.iloc[np.unique(np.linspace(0, len(known) - 1, min(_POINTS, len(known))).astype(int))]
    table = pd.DataFrame(
        {
            "photo": shown["filename"],
            "true": shown[task].astype("float64"),
            "predicted": shown[f"{task}_predicted"].astype("float64"),
        }
    )
    domain = alt.Scale(domain=[0, 1])
    points = (
        alt.Chart(table.round(3))
        .mark_point(style=model, filled=True, size=22, opacity=min(0.8, max(0.25, 400 / max(1, len(table)))))
        .encode(
            x=alt.X("true:Q", scale=domain, title=f"true {task} ({_ENDS[task]})"),
            y=alt.Y("predicted:Q", scale=domain, title="predicted"),
            tooltip=[alt.Tooltip("photo:N"), alt.Tooltip("true:Q"), alt.Tooltip("predicted:Q")],
        )
    )
    some = "" if len(shown) == len(known) else f", {len(shown)} of {len(known)} photos"
    errors = [f"MAE {write_value(metrics.get(f'{task}_mae'), '')}"]
    for name, word in ((f"{task}_mae_constant", "of the constant predictor"), (f"{task}_plcc", "PLCC")):
        if name in metrics:
            errors.append(f"{word} {write_value(metrics[name], '')}")
    return finish(
        f"regression-{task}-{model}",
        f"{MODELS[model]}, {task}{some}",
        f"Predicted against true {task} of {len(known)} photos, {MODELS[model]} model.",
        alt.layer(points, _identity("true", "predicted")),
        height=300,
        on_canvas=True,
        subtitle=", ".join(errors) if len(known) else _no_label(task),
    )


def _identity(x: str, y: str) -> alt.Chart:
    diagonal = pd.DataFrame({x: [0, 1], y: [0, 1]})
    line: alt.Chart = alt.Chart(diagonal).mark_line(style=QUIET, strokeDash=[5, 3]).encode(x=f"{x}:Q", y=f"{y}:Q")
    return line


def _no_label(task: str) -> str:
    return f"no test image has a label of {task}"
