from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from aerofuse.common.torchvision_pairing import ensure_torchvision_imports
from aerofuse.report.calibration import AFTER, BEFORE, NEVER, expected_calibration_error, reliability

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
        }
    )
    table.loc[:9, "type"] = None
    return table


def test_the_error_is_that_of_torchmetrics(predictions: pd.DataFrame) -> None:
    known = predictions[10:]
    right = torch.tensor((known["type"] == known["type_predicted"]).to_numpy(), dtype=torch.int64)
    confidence = torch.tensor(known["type_confidence"].to_numpy())
    expected = float(binary_calibration_error(confidence, right, n_bins=15))
    bins = reliability(predictions, "type")
    assert set(bins["kind"]) == {NEVER}
    assert bins["images"].sum() == IMAGES - 10
    assert expected_calibration_error(bins) == pytest.approx(expected, abs=1e-6)
    assert expected > 0.1


def test_both_kinds_where_the_model_is_calibrated(predictions: pd.DataFrame) -> None:
    predictions["type_confidence_uncalibrated"] = predictions["type_confidence"]
    predictions["type_confidence"] = predictions["type_confidence"] ** 2
    bins = reliability(predictions, "type")
    errors = {kind: expected_calibration_error(part) for kind, part in bins.groupby("kind")}
    assert errors.keys() == {AFTER, BEFORE}
    assert errors[AFTER] < errors[BEFORE] / 3


def test_intervals_hold_the_share_and_narrow_with_more_images(predictions: pd.DataFrame) -> None:
    few, many = (reliability(table, "type") for table in (predictions, pd.concat([predictions] * 9)))
    for bins in (few, many):
        assert ((bins["low"] <= bins["accuracy"]) & (bins["accuracy"] <= bins["high"])).all()
    assert ((many["high"] - many["low"]) < (few["high"] - few["low"])).all()


def test_a_confidence_of_one_is_in_the_last_bin() -> None:
    table = pd.DataFrame({"type": ["a"], "type_predicted": ["a"], "type_confidence": [1.0]})
    bins = reliability(table, "type")
    assert bins[["images", "confidence", "accuracy"]].to_numpy().tolist() == [[1, 1, 1]]
    with pytest.raises(ValueError, match="no image has a label"):
        expected_calibration_error(bins[:0])
