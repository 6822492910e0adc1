"""What the models answer against what is true: types, confidences, clarity and block."""

from __future__ import annotations

import altair as alt
import numpy as np
import pandas as pd

from aerofuse.common.markdown import Table
from aerofuse.plotting.charts import ON_DEEP, ON_PALE, QUIET, SECOND_PALETTE, Chart, finish, rows
from aerofuse.plotting.confusion import confusion_counts
from aerofuse.plotting.wording import MODELS
from aerofuse.report.calibration import mean_over_images, reliability

_MOST_CLASSES_WITH_NUMBERS = 20
_CONFUSED_PAIRS = 10
_POINTS = 3000  # of a scatter plot; more hide each other
_ENDS = {"clarity": "0 blurred, 1 sharp", "block": "0 fully visible, 1 fully hidden"}


def type_names(predictions: pd.DataFrame) -> list[str]:
    """Every type that is true or predicted somewhere."""
    return sorted(set(predictions["type"].dropna()) | set(predictions["type_predicted"]))


def confusion_chart(predictions: pd.DataFrame, model: str) -> Chart:
    """True types in rows, predicted ones in columns, as shares of the images of each true type."""
    names = type_names(predictions)
    counts = confusion_counts(predictions, names)
    images = counts.sum(axis=1)
    true, predicted = np.nonzero(counts)
    table = pd.DataFrame(
        {
            "true": [names[row] for row in true],
            "predicted": [names[column] for column in predicted],
            "images": counts[true, predicted],
            "share": counts[true, predicted] / images[true],
        }
    )
    few = len(names) <= _MOST_CLASSES_WITH_NUMBERS
    cell = 30 if few else 11
    labels = alt.Axis(labelLimit=130, labelOverlap=False, labelFontSize=12 if few else 9, ticks=False, domain=False)
    base = alt.Chart(rows(table)).encode(
        x=alt.X("predicted:N", sort=names, scale=alt.Scale(domain=names), axis=labels, title="predicted type"),
        y=alt.Y("true:N", sort=names, scale=alt.Scale(domain=names), axis=labels, title="true type"),
    )
    # A few confusions in a hundred stay visible: the colours are stretched where the shares are small.
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
    right = np.trace(counts) / counts.sum()
    shown = ", in % of the images of each true type" if few else ""
    title = f"{MODELS[model]}: {right:.1%} of {counts.sum()} types right{shown}"
    pairs = "; ".join(f"{row[0]} for {row[1]} {row[2]}" for row in confused_pairs(predictions).rows[:3])
    described = f"Confusion matrix of the {MODELS[model]} model over {len(names)} types. Most often taken: {pairs}."
    return finish(
        f"confusion-{model}",
        title,
        described,
        alt.layer(*layers),
        height=cell * len(names),
        least_width_px=0 if few else 140 + cell * len(names),
        on_canvas=not few,
    )


def confused_pairs(predictions: pd.DataFrame) -> Table:
    """The pairs of types that are taken for each other most often, both ways together."""
    names = type_names(predictions)
    counts = confusion_counts(predictions, names)
    together = np.triu(counts + counts.T, k=1)
    first, second = np.nonzero(together)
    order = np.argsort(-together[first, second], kind="stable")[:_CONFUSED_PAIRS]
    images = counts.sum(axis=1)

    def taken(a: int, b: int) -> str:
        return f"{counts[a, b]} of {images[a]}"

    lines = [
        [names[a], names[b], str(together[a, b]), taken(a, b), taken(b, a)]
        for a, b in zip(first[order], second[order], strict=True)
    ]
    header = ["one type", "the other", "confused", "the one taken for the other", "and the other way round"]
    return Table(header, lines, "llrrr")


def reliability_chart(predictions: pd.DataFrame, task: str, model: str) -> Chart:
    """How often the model is right against how sure it is; on the diagonal its confidence can be taken at its word."""
    bins = reliability(predictions, task)
    x = alt.Scale(domain=[0, 1])
    found = list(bins["kind"].unique())
    kinds = alt.Scale(domain=found, range=SECOND_PALETTE)
    diagonal = pd.DataFrame({"confidence": [0, 1], "accuracy": [0, 1]})
    legend = alt.Legend(orient="top", title=None) if len(found) > 1 else None
    base = alt.Chart(rows(bins)).encode(
        x=alt.X("confidence:Q", scale=x, title="mean confidence", axis=alt.Axis(format=".0%", tickCount=5)),
        y=alt.Y("accuracy:Q", scale=x, title="share that is right", axis=alt.Axis(format=".0%", tickCount=5)),
        color=alt.Color("kind:N", scale=kinds, legend=legend),
    )
    layers: list[alt.Chart] = [
        alt.Chart(diagonal).mark_line(style=QUIET, strokeDash=[5, 3]).encode(x="confidence:Q", y="accuracy:Q"),
        base.mark_line(strokeWidth=1, opacity=0.5),
        base.mark_rule(strokeWidth=1.5, opacity=0.6).encode(y="low:Q", y2="high:Q"),
        base.mark_point(filled=True, opacity=0.9).encode(
            size=alt.Size("images:Q", legend=None, scale=alt.Scale(range=[25, 350], zero=True)),
            shape=alt.Shape(
                "kind:N", scale=alt.Scale(domain=found, range=["circle", "diamond"][: len(found)]), legend=legend
            ),
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
    return finish(
        f"reliability-{task}-{model}",
        f"{MODELS[model]}, {task}" + ("" if len(found) > 1 else f", {found[0]}"),
        f"Reliability of {task}, {MODELS[model]} model. {said}.",
        alt.layer(*layers),
        height=260,
    )


def regression_chart(predictions: pd.DataFrame, task: str, model: str) -> Chart:
    """Predicted against true values, one point per photo, with the line where both are the same."""
    known = predictions.dropna(subset=[task])
    # Evenly over the table, which is in no order of the values.
    shown = known.iloc[np.unique(np.linspace(0, len(known) - 1, min(_POINTS, len(known))).astype(int))]
    table = pd.DataFrame(
        {
            "photo": shown["filename"],
            "true": shown[task].astype("float64"),
            "predicted": shown[f"{task}_predicted"].astype("float64"),
        }
    )
    domain = alt.Scale(domain=[0, 1])
    same = pd.DataFrame({"true": [0, 1], "predicted": [0, 1]})
    points = (
        alt.Chart(rows(table, 3))
        .mark_point(style=model, filled=True, size=22, opacity=min(0.8, max(0.25, 400 / len(table))))
        .encode(
            x=alt.X("true:Q", scale=domain, title=f"true {task} ({_ENDS[task]})"),
            y=alt.Y("predicted:Q", scale=domain, title="predicted"),
            tooltip=[alt.Tooltip("photo:N"), alt.Tooltip("true:Q"), alt.Tooltip("predicted:Q")],
        )
    )
    line = alt.Chart(same).mark_line(style=QUIET, strokeDash=[5, 3]).encode(x="true:Q", y="predicted:Q")
    some = "" if len(shown) == len(known) else f", {len(shown)} of {len(known)} photos"
    return finish(
        f"regression-{task}-{model}",
        f"{MODELS[model]}, {task}{some}",
        f"Predicted against true {task} of {len(known)} photos, {MODELS[model]} model.",
        alt.layer(points, line),
        height=300,
        on_canvas=True,
    )
