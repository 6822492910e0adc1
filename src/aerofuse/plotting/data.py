"""The prepared data as a table and as charts: photos and labels of each split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from aerofuse.common.markdown import Table
from aerofuse.data.labels import REGRESSION_TASKS, TASKS
from aerofuse.plotting.chart import SECOND_PALETTE, Chart, finish, write_picture

_BARS = 60  # classes in a chart


def split_table(data: Mapping[str, Any]) -> Table:
    """Return photos, classes, airframes and labels of each split; `data` is `reports/data/report.json`."""
    splits = data["splits"].values()
    lines = [
        ["photos", *(str(split["photos"]) for split in splits)],
        ["types", *(str(len(split["types"])) for split in splits)],
        ["fewest photos of a type", *(str(min(split["types"].values(), default=0)) for split in splits)],
        ["airlines", *(str(len(split["airlines"])) for split in splits)],
        ["known airframes", *(str(split["airframes"]) for split in splits)],
        *([f"with a label of {task}", *(str(split["labelled"][task]) for split in splits)] for task in TASKS),
    ]
    return Table(["", *data["splits"]], lines, "l" + "r" * len(data["splits"]))


def draw_data(data: Mapping[str, Any], folder: Path) -> list[str]:
    """Write `balance.png` and, where clarity or block have labels, `labels.png`; return the names of the files."""
    written = {"balance.png": [[chart] for chart in class_charts(data)]}
    if histograms := label_charts(data):
        written["labels.png"] = [histograms]
    for name, charts in written.items():
        write_picture(folder / name, charts)
    return list(written)


def class_charts(data: Mapping[str, Any]) -> list[Chart]:
    """Return the photos per type and, where there are labels, per airline, in each split."""
    return [_class_chart(data, kind) for kind in ("types", "airlines") if _classes(data, kind)]


def label_charts(data: Mapping[str, Any]) -> list[Chart]:
    """Return how the labels of clarity and block are spread in each split, where there are any."""
    return [_histogram(data, task) for task in REGRESSION_TASKS if _labelled(data, task)]


def _classes(data: Mapping[str, Any], kind: str) -> Counter[str]:
    photos: Counter[str] = Counter()
    for split in data["splits"].values():
        photos.update(split[kind])
    return photos


def _labelled(data: Mapping[str, Any], task: str) -> int:
    return sum(split["labelled"][task] for split in data["splits"].values())


def _split_colour(data: Mapping[str, Any]) -> alt.Color:
    scale = alt.Scale(domain=list(data["splits"]), range=SECOND_PALETTE)
    return alt.Color("split:N", scale=scale, legend=alt.Legend(orient="top", title=None))


def _class_chart(data: Mapping[str, Any], kind: str) -> Chart:
    photos = _classes(data, kind)
    names = [name for name, _ in photos.most_common(_BARS)]
    table = pd.DataFrame(
        {"name": name, "split": split, "photos": found[kind].get(name, 0), "order": order}
        for order, (split, found) in enumerate(data["splits"].items())
        for name in names
    )
    some = f"; {_BARS} of {len(photos)}" if len(photos) > _BARS else ""
    chart = (
        alt.Chart(table)
        .mark_bar()
        .encode(
            x=alt.X("photos:Q", title=None, axis=alt.Axis(tickMinStep=1)),
            y=alt.Y("name:N", sort=names, title=None, axis=alt.Axis(labelLimit=140)),
            color=_split_colour(data),
            order="order:Q",
            tooltip=[alt.Tooltip("name:N", title=" "), alt.Tooltip("split:N"), alt.Tooltip("photos:Q")],
        )
    )
    low, high = min(photos.values()), max(photos.values())
    described = f"Photos of each of {len(photos)} {kind}, from {low} to {high}."
    return finish(f"data-{kind}", f"photos per {kind[:-1]}{some}", described, chart, height=20 * len(names))


def _histogram(data: Mapping[str, Any], task: str) -> Chart:
    parts = []
    for split, found in data["splits"].items():
        counts = np.asarray(found["histograms"][task], dtype=np.float64)
        edges = np.linspace(0, 1, len(counts) + 1)
        shares = counts / max(1, counts.sum())
        # The last step, too, is drawn to its end.
        part = {"at": edges, "share": np.append(shares, shares[-1]), "photos": np.append(counts, counts[-1])}
        parts.append(pd.DataFrame(part).assign(split=split))
    chart = (
        alt.Chart(pd.concat(parts).round(4))
        .mark_line(interpolate="step-after", strokeWidth=2)
        .encode(
            x=alt.X("at:Q", title=f"label of {task}", scale=alt.Scale(domain=[0, 1])),
            y=alt.Y("share:Q", title="share of the labelled photos", axis=alt.Axis(format=".0%")),
            color=_split_colour(data),
            tooltip=[alt.Tooltip("split:N"), alt.Tooltip("at:Q", title="from"), alt.Tooltip("share:Q", format=".1%")],
        )
    )
    described = f"How the labels of {task} are spread from 0 to 1, per split; {_labelled(data, task)} photos have one."
    return finish(f"data-{task}", task, described, chart, height=200)
