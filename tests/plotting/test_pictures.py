"""Each picture of the pipeline: what its charts say, and the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from aerofuse.comparison.comparison import Comparison, Settings, compare_models
from aerofuse.plotting.answers import confusion_chart, draw_answers, regression_chart, reliability_chart
from aerofuse.plotting.chart import Chart
from aerofuse.plotting.data import class_charts, draw_data, label_charts
from aerofuse.plotting.images import draw_contact_sheet, draw_photos
from aerofuse.plotting.learning import draw_learning_curves, learning_charts
from aerofuse.plotting.models import draw_comparison, gates_chart, interval_charts
from tests.metrics import samples
from tests.report.page_sources import data_report

SETTINGS = Settings(confidence_level=0.95, resamples=200, recipe="quick", batch_size=32)
HISTORY = pd.DataFrame(
    {"epoch": [1, 2], "train_loss": [1.0, 0.5], "score": [0.4, 0.6], "type_top1": [0.4, 0.7], "clarity_mae": [0.2, 0.1]}
)
LABEL = {"typename": "Type A", "airlinename": None, "clarity": 0.5, "block": None}


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (96, 96, 3), dtype=np.uint8)


def hybrid() -> tuple[pd.DataFrame, dict[str, float]]:
    result = samples.results()["hybrid"]
    return result.predictions, dict(result.metrics)


def without_labels(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(type=None, airline=None, clarity=np.nan, block=np.nan)


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return compare_models(samples.results(), SETTINGS)


def values(chart: Chart) -> list[dict[str, Any]]:
    """All rows of data of a chart."""
    return [row for rows in chart.spec["datasets"].values() for row in rows]


def of_layer(chart: Chart, mark: str) -> list[dict[str, Any]]:
    """The rows of data of the first layer with a mark."""
    layer = next(layer for layer in chart.spec["layer"] if layer["mark"]["type"] == mark)
    data = layer.get("data", chart.spec.get("data"))
    rows: list[dict[str, Any]] = chart.spec["datasets"][data["name"]]
    return rows


PICTURES: dict[str, Callable[[Path], object]] = {
    "comparison": lambda folder: draw_comparison(compare_models(samples.results(), SETTINGS), folder / "a.png"),
    "answers": lambda folder: draw_answers(hybrid()[0], samples.TYPES, hybrid()[1], "hybrid", folder),
    "learning_curves": lambda folder: draw_learning_curves(
        {"A": HISTORY, "B": HISTORY}, "hybrid", folder / "a.png", title="hybrid"
    ),
    "data": lambda folder: draw_data(data_report(), folder),
    "photos": lambda folder: draw_photos([noise(i) for i in range(12)], [LABEL] * 12, folder / "a.png"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_small_and_the_same_each_time(name: str, tmp_path: Path) -> None:
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        PICTURES[name](tmp_path / folder)
    files = sorted((tmp_path / "first").iterdir())
    assert len(files) == {"answers": 3, "data": 2}.get(name, 1)
    for first in files:
        assert first.read_bytes() == (tmp_path / "second" / first.name).read_bytes()
        assert first.stat().st_size <= 150_000
        with Image.open(first) as image:
            assert image.format == "PNG"
            assert min(image.size) >= 300
            assert image.info.keys() <= {"transparency"}  # neither a date nor a version
            # Not a blank page.
            assert len(np.unique(np.asarray(image.convert("L")))) > 20


def test_the_confusion_chart_has_the_share_of_each_true_type() -> None:
    table, _ = hybrid()
    chart = confusion_chart(table, samples.TYPES, "hybrid")
    cells = of_layer(chart, "rect")
    assert sum(cell["images"] for cell in cells) == samples.IMAGES
    for name in set(table["type"]):
        assert sum(cell["share"] for cell in cells if cell["true"] == name) == pytest.approx(1, abs=1e-3)
    assert f"{np.mean(table['type'] == table['type_predicted']):.1%} of 120 types right" in chart.title
    encoding = chart.spec["layer"][0]["encoding"]
    assert (encoding["y"]["field"], encoding["x"]["field"]) == ("true", "predicted")
    assert encoding["x"]["scale"]["domain"] == list(samples.TYPES)


def test_the_reliability_chart_has_both_kinds_and_their_errors() -> None:
    table, metrics = hybrid()
    metrics |= {"type_ece": 0.0123, "type_ece_uncalibrated": 0.0456}
    chart = reliability_chart(table, "type", "hybrid", metrics)
    points = of_layer(chart, "point")
    assert {point["kind"] for point in points} == {"calibrated", "before calibration"}
    assert sum(point["images"] for point in points) == 2 * samples.IMAGES
    assert chart.subtitle == "ECE 1.23 %, before calibration 4.56 %"


def test_the_regression_chart_has_a_point_per_labelled_photo() -> None:
    table, metrics = hybrid()
    table.loc[:9, "clarity"] = np.nan
    chart = regression_chart(table, "clarity", "hybrid", metrics)
    points = of_layer(chart, "point")
    assert [point["photo"] for point in points] == list(table["filename"][10:])
    assert [point["predicted"] for point in points] == pytest.approx(list(table["clarity_predicted"][10:]), abs=1e-3)
    assert f"MAE {metrics['clarity_mae']:.4f}" in chart.subtitle


def test_answers_without_labels_say_so(tmp_path: Path) -> None:
    table = without_labels(hybrid()[0])
    metrics: dict[str, float] = {}
    for task in ("type", "airline"):
        assert reliability_chart(table, task, "hybrid", metrics).subtitle == f"no test image has a label of {task}"
    for task in ("clarity", "block"):
        assert regression_chart(table, task, "hybrid", metrics).subtitle == f"no test image has a label of {task}"
    assert confusion_chart(table, samples.TYPES, "hybrid").title == "hybrid: no test image has a type label"
    draw_answers(table, samples.TYPES, metrics, "hybrid", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"confusion.png", "reliability.png", "regression.png"}


def test_a_model_that_only_names_types_has_no_regression(tmp_path: Path) -> None:
    result = samples.results()["single_task"]
    draw_answers(result.predictions, samples.TYPES, result.metrics, "single_task", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"confusion.png", "reliability.png"}


def test_learning_curves_count_epochs_over_phases_and_mark_the_best() -> None:
    charts = {chart.name: chart for chart in learning_charts({"hybrid": {"A": HISTORY, "B": HISTORY}})}
    assert charts.keys() == {"curve-train_loss", "curve-score", "curve-type_top1", "curve-clarity_mae"}
    points = of_layer(charts["curve-score"], "point")
    assert [point["at"] for point in points] == [1, 2, 3, 4]
    assert [point["value"] for point in points] == [0.4, 0.6, 0.4, 0.6]
    assert [point["best"] for point in points] == [False, True, False, True]
    assert {row["start"] for row in values(charts["curve-score"]) if "start" in row} == {0.5, 2.5}
    single = learning_charts({"single-task": {"only": HISTORY}})
    assert not any("start" in row for chart in single for row in values(chart))


def test_learning_curves_need_an_epoch(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no epoch in the histories of A"):
        draw_learning_curves({"A": HISTORY[:0]}, "hybrid", tmp_path / "curves.png", title="hybrid")


def test_every_model_has_its_interval_or_no_such_head(comparison: Comparison) -> None:
    charts = {chart.name: chart for chart in interval_charts(comparison)}
    for row in comparison.rows:
        for metric, interval in row.intervals.items():
            scale = 100 if metric.endswith("_top1") else 1
            (shown,) = [
                found
                for found in of_layer(charts[f"interval-{metric}"], "point")
                if found["model"] == row.model.replace("_", "-")
            ]
            assert (shown["low"], shown["high"]) == pytest.approx(
                (scale * interval.low, scale * interval.high), abs=1e-4
            )
    absent = [row for row in values(charts["interval-clarity_mae"]) if row.get("why") == "no such head"]
    assert [row["model"] for row in absent] == ["single-task"]


def test_every_gate_is_a_row(comparison: Comparison) -> None:
    gates = [gate for gate in comparison.gates if gate.model == "hybrid"]
    shown = of_layer(gates_chart(gates), "rect")
    assert [(row["gate"], row["status"]) for row in shown] == [(gate.name, gate.status) for gate in gates]


def test_the_data_charts_count_every_photo_and_share_every_label() -> None:
    data = data_report()
    types, airlines = class_charts(data)
    assert sum(row["photos"] for row in values(types)) == 3 * 17 * len(samples.TYPES)
    assert {row["name"] for row in values(airlines)} == set(samples.AIRLINES)
    clarity, _ = label_charts(data)
    shares = [row["share"] for row in values(clarity) if row["split"] == "train"]
    assert sum(shares[:-1]) == pytest.approx(1)
    assert class_charts(data_report(())) != []
    assert label_charts(data_report(())) == []


def test_photos_need_labels(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 photos with 0 labels"):
        draw_photos([noise(0)], [], tmp_path / "photos.png")


def test_contact_sheet_of_a_prepared_split(prepared_folder: Path, tmp_path: Path) -> None:
    draw_contact_sheet(prepared_folder / "test.arrow", tmp_path / "sheet.png")
    assert 10_000 < (tmp_path / "sheet.png").stat().st_size <= 150_000
