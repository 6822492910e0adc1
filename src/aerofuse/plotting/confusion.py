"""Which types are taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.colors import PowerNorm

from aerofuse.plotting.style import GREY, INK, PALE, new_figure, save_figure, styled

_MOST_CLASSES_WITH_NUMBERS = 20
_LEAST_SHARE_WRITTEN = 0.005


def confusion_counts(predictions: pd.DataFrame, names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Counts `[C, C]` of true type (row) against predicted type (column), over the labelled images."""
    known = predictions.dropna(subset=["type"])
    rows = pd.Index(names).get_indexer(pd.Index(known["type"]))
    columns = pd.Index(names).get_indexer(pd.Index(known["type_predicted"]))
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(counts, (rows, columns), 1)
    return counts


@styled
def draw_confusion(predictions: pd.DataFrame, names: Sequence[str], model: str, path: Path) -> None:
    """Write the confusion matrix of the aircraft types, each row as shares of the images of that type.

    `predictions` is a table of `aerofuse.metrics.predictions`, `names` all types in order, `model` the name
    for the title. A type without a labelled test image has an empty row.
    """
    counts = confusion_counts(predictions, names)
    images = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, images, out=np.full(counts.shape, np.nan), where=images > 0)
    side = float(np.clip(2.6 + 0.46 * len(names), 5.5, 15))
    figure = new_figure(side, side)
    axes = figure.add_subplot()
    axes.grid(False)
    # A few confusions in a hundred stay visible: the colours are stretched where the shares are small.
    axes.imshow(np.ma.masked_invalid(shares), cmap="Blues", norm=PowerNorm(0.6, vmin=0, vmax=1))
    axes.set_facecolor(PALE)
    size = float(np.clip(330 / (len(names) + 25), 5, 9.5))
    axes.set_xticks(range(len(names)), names, rotation=90 if len(names) > 12 else 45, fontsize=size)
    for label in axes.get_xticklabels():
        label.set_horizontalalignment("center" if len(names) > 12 else "right")
        label.set_rotation_mode("default" if len(names) > 12 else "anchor")
    axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted type")
    axes.set_ylabel("true type")
    if len(names) <= _MOST_CLASSES_WITH_NUMBERS:
        _write_shares(axes, shares, size)
    axes.set_title(_title(counts, model))
    save_figure(figure, path)


def _title(counts: npt.NDArray[np.int64], model: str) -> str:
    total = int(counts.sum())
    if not total:
        return f"{model}: no test image has a type label"
    right = np.trace(counts) / total
    shown = "numbers: %" if len(counts) <= _MOST_CLASSES_WITH_NUMBERS else "colour: share"
    return f"{model}: {right:.1%} of {total} types right\n{shown} of the images of each true type"


def _write_shares(axes: Any, shares: npt.NDArray[np.float64], size: float) -> None:
    for (row, column), share in np.ndenumerate(shares):
        if share >= _LEAST_SHARE_WRITTEN:  # false for NaN too
            colour = "white" if share > 0.35 else INK if row == column or share > 0.1 else GREY
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=size, color=colour)
