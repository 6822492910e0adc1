from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from aerofuse.metrics.metrics import compute_metrics
from aerofuse.metrics.predictions import (
    per_image_values,
    plotted_columns,
    prediction_table,
    read_predictions,
    worst_mistakes,
    write_predictions,
)
from tests.metrics import samples

TYPES = ("A320", "A380", "B737", "B747", "B777", "C130")
AIRLINES = ("Air A", "Air B")
LABELS = pd.DataFrame(
    {
        "filename": ["x.jpg", "y.jpg", "z.jpg"],
        "typename": ["A320", None, "C130"],
        "airlinename": [None, None, None],
        "clarity": [0.5, None, 0.25],
        "block": [0.0, 0.1, None],
        "registration": ["D-ABCD", None, None],
    }
)


def outputs() -> dict[str, Tensor]:
    logits = torch.log(torch.tensor([[0.4, 0.3, 0.1, 0.1, 0.06, 0.04], [1, 1, 1, 1, 1, 3], [9, 8, 7, 6, 5, 4]]))
    return {
        "type": logits,
        "airline": torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]]),
        "clarity": torch.tensor([0.75, 0.5, 0.125]),
        "block": torch.tensor([0.5, 0.25, 0.0]),
    }


def test_the_rows() -> None:
    table = prediction_table(LABELS, outputs(), TYPES, AIRLINES, uncalibrated=outputs())
    assert list(table["filename"]) == ["x.jpg", "y.jpg", "z.jpg"]
    assert list(table["type_predicted"]) == ["A320", "C130", "A320"]
    assert list(table["type_confidence"]) == pytest.approx([0.4, 3 / 8, 9 / 39])
    assert table["type_top5"][0] == ["A320", "A380", "B737", "B747", "B777"]  # as likely: in the order of classes
    assert table["type_probabilities"][2] == pytest.approx([9 / 39, 8 / 39, 7 / 39, 6 / 39, 5 / 39, 4 / 39])
    assert list(table["airline_predicted"]) == ["Air A", "Air A", "Air B"]
    assert list(table["quality_score"]) == pytest.approx([0.375, 0.375, 0.125])
    assert table["type"].isna().tolist() == [False, True, False]
    assert table["airline"].isna().all()


def test_confidences_before_calibration_have_their_own_columns() -> None:
    softened = outputs() | {"type": outputs()["type"] / 2, "airline": outputs()["airline"] / 2}
    table = prediction_table(LABELS, softened, TYPES, AIRLINES, uncalibrated=outputs())
    assert list(table["type_confidence_uncalibrated"]) == pytest.approx([0.4, 3 / 8, 9 / 39])
    for task in ("type", "airline"):
        columns = list(table.columns)
        assert columns.index(f"{task}_confidence_uncalibrated") == columns.index(f"{task}_confidence") + 1
    assert (table["type_confidence"] < table["type_confidence_uncalibrated"]).all()


def test_a_single_task_model_has_columns_of_type_only() -> None:
    table = prediction_table(LABELS, {"type": outputs()["type"]}, TYPES, AIRLINES, uncalibrated=outputs())
    assert list(table.columns) == [
        "filename",
        "type",
        "type_predicted",
        "type_confidence",
        "type_confidence_uncalibrated",
        "type_top5",
        "type_probabilities",
    ]
    assert list(plotted_columns(table).columns) == ["type", "type_predicted"]


def test_the_file_keeps_everything_and_has_the_same_bytes_each_time(tmp_path: Path) -> None:
    table = prediction_table(LABELS, outputs(), TYPES, AIRLINES, uncalibrated=outputs())
    for name in ("first", "second"):
        write_predictions(tmp_path / name / "table.parquet", table)
    first, second = tmp_path / "first" / "table.parquet", tmp_path / "second" / "table.parquet"
    assert first.read_bytes() == second.read_bytes()
    loaded = read_predictions(first)
    assert list(loaded.columns) == list(table.columns)
    for column in ("type", "airline", "clarity", "block"):
        assert loaded[column].isna().tolist() == table[column].isna().tolist()
    assert [list(names) for names in loaded["type_top5"]] == table["type_top5"].tolist()
    assert loaded["quality_score"].to_numpy() == pytest.approx(table["quality_score"].to_numpy())
    write_predictions(tmp_path / "again.parquet", loaded)
    assert (tmp_path / "again.parquet").read_bytes() == first.read_bytes()


def test_values_per_image_average_to_the_metrics() -> None:
    table = prediction_table(LABELS, outputs(), TYPES, AIRLINES, uncalibrated=outputs())
    values = per_image_values(table)
    np.testing.assert_array_equal(values["type_top1"], [1.0, np.nan, 0.0])
    assert np.isnan(values["airline_top1"]).all()
    targets = {
        "type": torch.tensor([0, -1, 5]),
        "airline": torch.tensor([-1, -1, -1]),
        "clarity": torch.tensor([0.5, torch.nan, 0.25]),
        "block": torch.tensor([0.0, 0.1, torch.nan]),
    }
    metrics = dict(compute_metrics(outputs(), targets))
    for name in ("type_top1", "clarity_mae", "block_mae"):
        assert np.nanmean(values[name]) == pytest.approx(metrics[name])


def test_plotted_values_are_short() -> None:
    long = outputs() | {"clarity": torch.tensor([1 / 3, 2 / 3, 0.1])}
    assert list(
        plotted_columns(prediction_table(LABELS, long, TYPES, AIRLINES, uncalibrated=long))["clarity_predicted"]
    ) == [0.3333, 0.6667, 0.1]


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="type: 2 predictions for 3 images"):
        prediction_table(LABELS, {"type": outputs()["type"][:2]}, TYPES, AIRLINES, uncalibrated=outputs())
    with pytest.raises(ValueError, match="type 'C130' is not a class of the model; it knows A320"):
        prediction_table(LABELS, {"type": outputs()["type"][:, :5]}, TYPES[:5], AIRLINES, uncalibrated=outputs())
    with pytest.raises(ValueError, match="no column of predictions: extra"):
        write_predictions(tmp_path / "table.parquet", pd.DataFrame({"extra": [1]}))
    with pytest.raises(FileNotFoundError, match=r"dvc repro evaluate"):
        read_predictions(tmp_path / "none.parquet")


def test_wrong_types_come_with_the_surest_first() -> None:
    table = samples.results()["multi_task"].predictions
    table["type_confidence"] = np.linspace(0.2, 0.9, len(table), dtype=np.float32)
    table.loc[11, "type"] = None
    worst = worst_mistakes(table, 4)["type"]
    # The first 12 are wrong, and the last of them has no label any more.
    assert list(worst.index) == [10, 9, 8, 7]
    assert (worst["type"] != worst["type_predicted"]).all()
    assert len(worst_mistakes(table, 50)["type"]) == 11


def test_errors_of_values_come_with_the_largest_first_whatever_their_sign() -> None:
    table = samples.results()["hybrid"].predictions
    table["clarity_predicted"] = table["clarity"] + 0.01
    table.loc[[5, 50], "clarity_predicted"] = table.loc[[5, 50], "clarity"] + [-0.4, 0.3]
    table.loc[7, ["clarity", "clarity_predicted"]] = [np.nan, 1.0]
    worst = worst_mistakes(table, 2)["clarity"]
    assert list(worst.index) == [5, 50]
    assert list(worst["error"]) == pytest.approx([-0.4, 0.3], abs=1e-6)


def test_no_mistakes_and_no_heads() -> None:
    table = samples.results(hybrid_wrong=0)["hybrid"].predictions
    assert worst_mistakes(table, 3)["type"].empty
    assert worst_mistakes(table, 0)["block"].empty
    table[["clarity", "block"]] = np.nan
    assert worst_mistakes(table, 3)["clarity"].empty
    assert list(worst_mistakes(samples.results()["single_task"].predictions, 3)) == ["type"]
