"""Learning curves: training loss and validation metrics over the epochs, across the phases of a model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import altair as alt
import pandas as pd

from aerofuse.plotting.chart import (
    MODEL_COLOUR,
    MODEL_LEGEND,
    MODEL_SHAPE,
    QUIET,
    Chart,
    finish,
    in_rows,
    write_picture,
)

_CURVES = {
    "train_loss": "training loss",
    "score": "validation score",
    "type_top1": "validation type top-1",
    "airline_top1": "validation airline top-1",
    "clarity_mae": "validation clarity MAE",
    "block_mae": "validation block MAE",
}


def draw_learning_curves(histories: Mapping[str, pd.DataFrame], model: str, path: Path, *, title: str) -> None:
    """Write the curves of one model, three in a row; `histories` holds a table per phase, as for `join_phases`.

    `model` is a name of `MODELS`. Raises `ValueError` where there is no epoch at all.
    """
    charts = learning_charts({model: histories})
    write_picture(path, in_rows(charts, 3), title=f"{title}: learning curves, large: best epoch", width_px=900)


def learning_charts(models: Mapping[str, Mapping[str, pd.DataFrame]]) -> list[Chart]:
    """Return a chart per curve that was recorded, with the models by name and their phases' histories.

    The phases of a model with more than one are marked, and so is the best epoch of each, from which the next starts.
    """
    joined = {name: join_phases(histories) for name, histories in models.items()}
    table = pd.concat([history.assign(model=name) for name, history in joined.items()])
    phased = [history for history in joined.values() if history["phase"].nunique() > 1]
    phases = _phases(phased[0]) if phased else None
    return [
        _learning_chart(table, phases, name, title, MODEL_LEGEND if len(models) > 1 else "")
        for name, title in _CURVES.items()
        if name in table and table[name].notna().any()
    ]


def join_phases(histories: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return all phases in one table: `at` counts the epochs on, `phase` names the phase, `best` marks its best epoch.

    `histories` holds, per phase and in their order, a table with the column `epoch` (counted from 1 in each phase), and
    of `train_loss`, `score`, `type_top1`, `airline_top1`, `clarity_mae`, `block_mae` those that there are.
    Raises `ValueError` where there is no epoch at all.
    """
    parts = []
    done = 0
    for phase, history in histories.items():
        if history.empty:
            continue
        part = history.assign(phase=phase, at=history["epoch"] + done, best=False)
        if "score" in part:
            part.loc[part["score"].idxmax(), "best"] = True
        parts.append(part)
        done += int(history["epoch"].max())
    if not parts:
        raise ValueError(f"no epoch in the histories of {', '.join(histories) or 'no phase at all'}")
    return pd.concat(parts, ignore_index=True)


def _phases(history: pd.DataFrame) -> pd.DataFrame:
    """Return where each phase begins, and its middle, on the axis of epochs."""
    spans = history.groupby("phase", sort=False)["at"].agg(["min", "max"])
    return pd.DataFrame(
        {
            "phase": list(spans.index),
            "start": spans["min"].to_numpy() - 0.5,
            "middle": (spans["min"].to_numpy() + spans["max"].to_numpy()) / 2,
        }
    )


def _learning_chart(table: pd.DataFrame, phases: pd.DataFrame | None, name: str, title: str, legend: str) -> Chart:
    known = table.dropna(subset=[name])
    last = int(table["at"].max())
    shown = known[["model", "phase", "at", "epoch", "best", name]].rename(columns={name: "value"})
    epochs = alt.Axis(values=list(range(1, last + 1, max(1, math.ceil(last / 10)))), format="d", grid=False)
    base = alt.Chart(shown.round(4)).encode(
        x=alt.X(
            "at:Q",
            title="epoch" if phases is None else "epoch, over all phases",
            axis=epochs,
            scale=alt.Scale(domain=[0.5, last + 0.5], nice=False),
        ),
        # Room for the numbers, so that charts below each other begin at the same place.
        y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(minExtent=40)),
        color=MODEL_COLOUR,
    )
    layers: list[alt.Chart] = [
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
    if phases is not None:
        marks = alt.Chart(phases)
        layers[:0] = [
            marks.mark_rule(style=QUIET, strokeDash=[4, 3]).encode(x="start:Q").transform_filter("datum.start > 0.5"),
            marks.mark_text(style=QUIET, baseline="bottom").encode(x="middle:Q", y=alt.value(-3), text="phase:N"),
        ]
    ends = known.sort_values("at").groupby("model", sort=False)[name].agg(["first", "last"])
    said = "; ".join(f"{model} from {row['first']:.3f} to {row['last']:.3f}" for model, row in ends.iterrows())
    return finish(f"curve-{name}", title, f"{title}: {said}.", alt.layer(*layers), height=190, subtitle=legend)
