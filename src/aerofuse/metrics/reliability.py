"""Reliability of confidences: the share of right answers in each bin of confidence."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import binomtest

from aerofuse.data.labels import CLASSIFICATION_TASKS

BINS = 15  # of equal width, as in Guo and others, 2017 (arXiv 1706.04599)
AFTER, BEFORE = "calibrated", "before calibration"


def bin_numbers(confidence: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
    """Return the bin of each confidence in 0..1, `[N]`; a confidence on a border is in the upper bin.

    torchmetrics does the same.
    """
    return np.minimum((confidence * BINS).astype(np.int64), BINS - 1)


def reliability_bins(predictions: pd.DataFrame, task: str) -> pd.DataFrame:
    """Return a row per bin: `kind`, `images`, their mean `confidence`, the share of right answers as `accuracy`.

    `predictions` is a table of `aerofuse.metrics.predictions`, of which only images with a label count. `kind` is
    `AFTER` or `BEFORE` calibration. `low` and `high` are the 95 % interval of `accuracy` (Wilson, J. Am. Stat. Assoc.
    22, 1927). Bins without images are left out.
    """
    known = predictions[predictions[task].notna()]
    right = (known[task] == known[f"{task}_predicted"]).to_numpy(dtype=np.float64)
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
