"""Confidence against the share that is right: the reliability diagram, before and after calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from aerofuse.data.labels import CLASSIFICATION_TASKS
from aerofuse.plotting.style import BLUE, GREY, INK, ORANGE, new_figure, save_figure, styled
from aerofuse.plotting.wording import write_value

BINS = 15  # of equal width, as in Guo et al., arXiv 1706.04599
_LARGEST_DOT, _LEAST_DOT = 260.0, 8.0  # in square points
# suffix of the column and of the metric: (name, colour)
_WAYS = {"_uncalibrated": ("as the network says", ORANGE), "": ("calibrated", BLUE)}


@dataclass(frozen=True)
class Bins:
    """Of each bin that has images: their mean confidence, the share that is right, and how many they are; `[K]`."""

    confidence: npt.NDArray[np.float64]
    accuracy: npt.NDArray[np.float64]
    images: npt.NDArray[np.int64]


def bin_numbers(confidence: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """The bin of each confidence in 0..1, `[N]`, from 0 up; one on a border is in the upper, as with torchmetrics."""
    return np.minimum((confidence * BINS).astype(np.int64), BINS - 1)


def reliability_bins(confidence: npt.NDArray[np.floating], right: npt.NDArray[np.bool_]) -> Bins:
    """Images `[N]` put into bins of equal width by their confidence in 0..1."""
    number = bin_numbers(confidence)
    images = np.bincount(number, minlength=BINS)
    filled = images > 0
    sums = [np.bincount(number, weights=values, minlength=BINS)[filled] for values in (confidence, right)]
    return Bins(sums[0] / images[filled], sums[1] / images[filled], images[filled])


@styled
def draw_reliability(predictions: pd.DataFrame, metrics: Mapping[str, float], model: str, path: Path) -> None:
    """Write a diagram for each classification head of `predictions`, a table of `aerofuse.metrics.predictions`.

    A dot is a bin of confidence, and its area the share of the test images in it. On the diagonal, confidence is
    true; below it, the model is too sure. `metrics` holds `{task}_ece` and `{task}_ece_uncalibrated`.
    """
    tasks = [task for task in CLASSIFICATION_TASKS if f"{task}_predicted" in predictions]
    figure = new_figure(4.8 * len(tasks), 5.3)
    figure.suptitle(f"{model}: confidence against share right", x=0.01, ha="left")
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        known = predictions.dropna(subset=[task])
        axes.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        axes.set(xlim=(-0.02, 1.04), ylim=(-0.02, 1.04), aspect="equal")
        axes.set_xlabel(f"confidence in the {task}")
        axes.set_ylabel("share right")
        axes.set_title(f"{task}, {len(known)} images", fontsize=10)
        if known.empty:
            axes.text(0.5, 0.3, f"no test image has\na label of {task}", ha="center", color=GREY)
            continue
        for suffix in _WAYS:
            _draw_bins(axes, known, task, suffix, metrics)
        legend = axes.legend(loc="lower right")
        for handle in legend.legend_handles:
            handle.set_sizes([40.0])
    save_figure(figure, path)


def _draw_bins(axes: Any, known: pd.DataFrame, task: str, suffix: str, metrics: Mapping[str, float]) -> None:
    right = (known[task] == known[f"{task}_predicted"]).to_numpy()
    bins = reliability_bins(known[f"{task}_confidence{suffix}"].to_numpy(dtype=np.float64), right)
    name, colour = _WAYS[suffix]
    error = write_value(metrics.get(f"{task}_ece{suffix}"), "")
    axes.plot(bins.confidence, bins.accuracy, color=colour, linewidth=1, alpha=0.6)
    area = np.maximum(_LARGEST_DOT * bins.images / bins.images.sum(), _LEAST_DOT)
    axes.scatter(bins.confidence, bins.accuracy, s=area, color=colour, linewidth=0, label=f"{name}: ECE {error}")
