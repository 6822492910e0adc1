from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from aerofuse.common.torchvision_pairing import ensure_torchvision_imports
from aerofuse.metrics.reliability import (
    AFTER,
    BEFORE,
    accuracy_by_clarity,
    bin_numbers,
    mean_over_images,
    reliability_bins,
)

ensure_torchvision_imports()

from torchmetrics.functional.classification import binary_calibration_error  # noqa: E402

IMAGES = 400


@pytest.fixture
def predictions() -> pd.DataFrame:
    """Confidences from 0.1 to 1, right as often as their square says; ten images without a label."""
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.1, 1, IMAGES)
    right = generator.random(IMAGES) < confidence**2
    table = pd.DataFrame(
        {
            "type": "a",
            "type_predicted": np.where(right, "a", "b"),
            "type_confidence": confidence.astype(np.float32),
            "type_confidence_uncalibrated": np.sqrt(confidence).astype(np.float32),
        }
    )
    table.loc[:9, "type"] = None
    return table


def expected_calibration_error(bins: pd.DataFrame) -> float:
    distances = (bins["accuracy"] - bins["confidence"]).abs()
    return float((distances * bins["images"]).sum() / bins["images"].sum())


@pytest.mark.parametrize("kind", [AFTER, BEFORE])
def test_the_bins_are_those_of_torchmetrics(predictions: pd.DataFrame, kind: str) -> None:
    known = predictions[10:]
    right = torch.tensor((known["type"] == known["type_predicted"]).to_numpy(), dtype=torch.int64)
    suffix = {AFTER: "", BEFORE: "_uncalibrated"}[kind]
    confidence = torch.tensor(known[f"type_confidence{suffix}"].to_numpy())
    expected = float(binary_calibration_error(confidence, right, n_bins=15))
    bins = reliability_bins(predictions, "type")
    bins = bins[bins["kind"] == kind]
    assert bins["images"].sum() == IMAGES - 10
    assert mean_over_images(bins, "accuracy") == pytest.approx(float(right.double().mean()))
    assert expected_calibration_error(bins) == pytest.approx(expected, abs=1e-6)
    assert expected > 0.1


def test_intervals_hold_the_share_and_narrow_with_more_images(predictions: pd.DataFrame) -> None:
    few, many = (reliability_bins(table, "type") for table in (predictions, pd.concat([predictions] * 9)))
    for bins in (few, many):
        assert ((bins["low"] <= bins["accuracy"]) & (bins["accuracy"] <= bins["high"])).all()
    assert ((many["high"] - many["low"]) < (few["high"] - few["low"])).all()


def test_a_confidence_on_a_border_is_in_the_upper_bin() -> None:
    assert bin_numbers(np.array([0.0, 0.0666, 1 / 15, 0.2, 0.999, 1.0])).tolist() == [0, 0, 1, 3, 14, 14]


def test_accuracy_by_clarity_is_that_of_each_tenth() -> None:
    clarity = pd.Series([0.05, 0.09, 0.31, 0.35, 0.39, 1.0, 0.5, np.nan])
    types = ["a"] * 6 + [None, "a"]
    predicted = ["a", "b", "a", "a", "b", "a", "a", "a"]
    found = accuracy_by_clarity(pd.DataFrame({"type": types, "type_predicted": predicted}), clarity)
    assert found["clarity"].tolist() == pytest.approx([0.05, 0.35, 0.95])
    assert found["images"].tolist() == [2, 3, 1]
    assert found["accuracy"].tolist() == pytest.approx([1 / 2, 2 / 3, 1])
    assert ((found["low"] < found["accuracy"]) & (found["accuracy"] <= found["high"])).all()
