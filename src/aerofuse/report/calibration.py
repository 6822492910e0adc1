"""How often a model is right when it is so sure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import binomtest

from aerofuse.data.labels import CLASSIFICATION_TASKS
from aerofuse.plotting.reliability import bin_numbers

AFTER, BEFORE, NEVER = "calibrated", "before calibration", "not calibrated"


def confidences(predictions: pd.DataFrame, task: str) -> dict[str, pd.Series[float]]:
    """The confidences of the labelled images, as the model gives them and, if calibrated, as they were before."""
    known = predictions[predictions[task].notna()]
    given = known[f"{task}_confidence"]
    before = f"{task}_confidence_uncalibrated"
    return {AFTER: given, BEFORE: known[before]} if before in known else {NEVER: given}


def reliability(predictions: pd.DataFrame, task: str) -> pd.DataFrame:
    """Per bin of confidence: `kind`, `images`, their mean `confidence`, the share that is right as `accuracy`.

    `low` and `high` are the ends of its 95 % interval (Wilson, J. Am. Stat. Assoc. 22, 1927). Bins without images are
    left out; they are those of `aerofuse.plotting.reliability`. `kind` is as in `confidences`.
    """
    known = predictions[predictions[task].notna()]
    right = (known[task] == known[f"{task}_predicted"]).to_numpy(dtype=np.float64)
    parts = []
    for kind, values in confidences(predictions, task).items():
        bins = bin_numbers(values.to_numpy(dtype=np.float64))
        table = pd.DataFrame({"bin": bins, "confidence": values.to_numpy(dtype=np.float64), "accuracy": right})
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


def expected_calibration_error(bins: pd.DataFrame) -> float:
    """The mean distance of accuracy from confidence over the images of the bins of one kind. `ValueError` for none."""
    if bins.empty:
        raise ValueError("no image has a label, so there is no calibration error")
    distances = (bins["accuracy"] - bins["confidence"]).abs()
    return float((distances * bins["images"]).sum() / bins["images"].sum())


def mean_over_images(bins: pd.DataFrame, column: str) -> float:
    """The mean of `confidence` or `accuracy` over all images of the bins of one kind."""
    return float((bins[column] * bins["images"]).sum() / bins["images"].sum())


def calibrated_tasks(predictions: pd.DataFrame) -> list[str]:
    """The tasks with a confidence and a label."""
    return [task for task in CLASSIFICATION_TASKS if task in predictions and predictions[task].notna().any()]
