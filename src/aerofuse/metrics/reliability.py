"""The share of right answers in each bin of confidence, which says how reliable that is, and in each of clarity."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import binomtest

from aerofuse.data.labels import CLASSIFICATION_TASKS

BINS = 15  # of equal width, as in Guo and others, 2017 (arXiv 1706.04599)
AFTER, BEFORE = "calibrated", "before calibration"
_CLARITY_BINS = 10


def bin_numbers(confidence: npt.NDArray[np.floating], bins: int = BINS) -> npt.NDArray[np.int64]:
    """Return the bin of each confidence in 0..1, `[N]`; a confidence on a border is in the upper bin.

    torchmetrics does the same.
    """
    return np.minimum((confidence * bins).astype(np.int64), bins - 1)


def reliability_bins(predictions: pd.DataFrame, task: str) -> pd.DataFrame:
    """Return a row per bin: `kind`, `images`, their mean `confidence`, the share of right answers as `accuracy`.

    `predictions` is a table of `aerofuse.metrics.predictions`, of which only images with a label count. `kind` is
    `AFTER` or `BEFORE` calibration. `low` and `high` are the 95 % interval of `accuracy` (Wilson, J. Am. Stat. Assoc.
    22, 1927). Bins without images are left out.
    """
    known = predictions[predictions[task].notna()]
    right = _right(known, task)
    parts = []
    for kind, suffix in ((AFTER, ""), (BEFORE, "_uncalibrated")):
        confidence = known[f"{task}_confidence{suffix}"].to_numpy(dtype=np.float64)
        table = pd.DataFrame({"bin": bin_numbers(confidence), "confidence": confidence, "accuracy": right})
        means = table.groupby("bin").agg(
            images=("confidence", "size"), confidence=("confidence", "mean"), accuracy=("accuracy", "mean")
        )
        means["low"], means["high"] = _wilson(means["accuracy"].to_numpy(), means["images"].to_numpy())
        parts.append(means.reset_index(drop=True).assign(kind=kind))
    return pd.concat(parts, ignore_index=True)


def accuracy_by_clarity(predictions: pd.DataFrame, clarity: pd.Series) -> pd.DataFrame:
    """Return a row per tenth of clarity, `clarity` its middle: `images`, and as above `accuracy` with its interval.

    It is the accuracy of the type. `clarity` `[N]` is that of the images of the table, whose model may know none. Only
    images with both labels count; tenths without any are left out.
    """
    labelled = (predictions["type"].notna() & clarity.notna().to_numpy()).to_numpy()
    known = predictions[labelled]
    number = bin_numbers(clarity[labelled].to_numpy(dtype=np.float64), _CLARITY_BINS)
    table = pd.DataFrame({"bin": number, "accuracy": _right(known, "type")}).groupby("bin")
    means = table.agg(images=("accuracy", "size"), accuracy=("accuracy", "mean")).reset_index()
    means["clarity"] = (means["bin"] + 0.5) / _CLARITY_BINS
    means["low"], means["high"] = _wilson(means["accuracy"].to_numpy(), means["images"].to_numpy())
    return means.drop(columns="bin")


def _right(known: pd.DataFrame, task: str) -> npt.NDArray[np.float64]:
    return np.asarray(known[task] == known[f"{task}_predicted"], dtype=np.float64)


def _wilson(shares: npt.NDArray[np.float64], images: npt.NDArray[np.int64]) -> tuple[list[float], list[float]]:
    tests = [binomtest(round(share * n), int(n)) for share, n in zip(shares, images, strict=True)]
    intervals = [test.proportion_ci(0.95, method="wilson") for test in tests]
    return [float(interval.low) for interval in intervals], [float(interval.high) for interval in intervals]


def mean_over_images(bins: pd.DataFrame, column: str) -> float:
    """Return the mean of `confidence` or `accuracy` over all images of the bins of one kind."""
    return float((bins[column] * bins["images"]).sum() / bins["images"].sum())


def calibrated_tasks(predictions: pd.DataFrame) -> list[str]:
    """Return the classification tasks that have labels."""
    return [task for task in CLASSIFICATION_TASKS if task in predictions and predictions[task].notna().any()]
