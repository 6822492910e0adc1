from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from aerofuse.comparison.comparison import Settings, compare_models
from aerofuse.plotting.comparison_picture import draw_comparison
from aerofuse.plotting.confusion import confusion_counts, draw_confusion
from aerofuse.plotting.contact_sheet import draw_contact_sheet, draw_photos
from aerofuse.plotting.learning_curves import draw_learning_curves
from aerofuse.plotting.regression import draw_regression
from aerofuse.plotting.reliability import bin_numbers, draw_reliability, reliability_bins
from aerofuse.plotting.style import new_figure, save_figure
from tests.metrics import samples

SETTINGS = Settings(confidence_level=0.95, resamples=200, recipe="quick", batch_size=32)
HISTORY = pd.DataFrame(
    {"epoch": [1, 2], "train_loss": [1.0, 0.5], "score": [0.4, 0.6], "type_top1": [0.4, 0.7], "clarity_mae": [0.2, 0.1]}
)
LABEL = {"typename": "Type A", "airlinename": None, "clarity": 0.5, "block": None}


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (96, 96, 3), dtype=np.uint8)


def without_labels(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(type=None, clarity=np.nan, block=np.nan)


def draw_hybrid_confusion(path: Path) -> None:
    draw_confusion(samples.results()["hybrid"].predictions, samples.TYPES, "hybrid", path)


def draw_hybrid_regression(path: Path) -> None:
    draw_regression(samples.results()["hybrid"].predictions, samples.results()["hybrid"].metrics, "hybrid", path)


def draw_hybrid_reliability(path: Path) -> None:
    draw_reliability(samples.results()["hybrid"].predictions, samples.results()["hybrid"].metrics, "hybrid", path)


PICTURES: dict[str, Callable[[Path], None]] = {
    "comparison": lambda path: draw_comparison(compare_models(samples.results(), SETTINGS), path),
    "confusion": draw_hybrid_confusion,
    "regression": draw_hybrid_regression,
    "reliability": draw_hybrid_reliability,
    "learning_curves": lambda path: draw_learning_curves({"A": HISTORY, "B": HISTORY}, "hybrid", path),
    "photos": lambda path: draw_photos([noise(i) for i in range(12)], [LABEL] * 12, path),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_small_and_the_same_each_time(name: str, tmp_path: Path) -> None:
    first, second = tmp_path / "first.png", tmp_path / "second.png"
    PICTURES[name](first)
    with matplotlib.rc_context({"font.size": 25, "figure.dpi": 30, "axes.facecolor": "red"}):  # a user's own settings
        PICTURES[name](second)
        assert matplotlib.rcParams["font.size"] == 25
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_size <= 150_000
    with Image.open(first) as image:
        assert image.format == "PNG"
        assert min(image.size) >= 300
        assert image.info.keys() <= {"transparency"}  # neither a date nor a version
        # Not a blank page.
        assert len(np.unique(np.asarray(image.convert("L")))) > 20


def test_confusion_counts_are_those_of_scikit_learn() -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    table = samples.results()["hybrid"].predictions
    table.loc[:2, "type"] = None
    known = table[3:]
    expected = sklearn_metrics.confusion_matrix(known["type"], known["type_predicted"], labels=samples.TYPES)
    counts = confusion_counts(table, samples.TYPES)
    np.testing.assert_array_equal(counts, expected)
    assert counts.sum() == samples.IMAGES - 3


def test_pictures_of_a_data_set_without_labels(tmp_path: Path) -> None:
    result = samples.results()["hybrid"]
    draw_confusion(without_labels(result.predictions), samples.TYPES, "hybrid", tmp_path / "confusion.png")
    draw_regression(without_labels(result.predictions), {}, "hybrid", tmp_path / "regression.png")
    draw_hybrid_confusion(tmp_path / "full.png")
    assert (tmp_path / "regression.png").exists()
    assert (tmp_path / "confusion.png").read_bytes() != (tmp_path / "full.png").read_bytes()


def test_learning_curves_need_an_epoch(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no epoch in the histories of A"):
        draw_learning_curves({"A": HISTORY[:0]}, "hybrid", tmp_path / "curves.png")


def test_photos_need_labels(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 photos with 0 labels"):
        draw_photos([noise(0)], [], tmp_path / "photos.png")


def test_contact_sheet_of_a_prepared_split(prepared_folder: Path, tmp_path: Path) -> None:
    draw_contact_sheet(prepared_folder / "test.arrow", tmp_path / "sheet.png")
    assert 10_000 < (tmp_path / "sheet.png").stat().st_size <= 150_000


def test_a_picture_that_is_too_large_is_reduced_or_refused(tmp_path: Path) -> None:
    figure = new_figure(3, 3)
    figure.add_subplot().imshow(noise(0))
    save_figure(figure, tmp_path / "small.png", max_bytes=8_000)
    assert (tmp_path / "small.png").stat().st_size <= 8_000
    with pytest.raises(ValueError, match="cannot be a PNG of 10 bytes"):
        save_figure(figure, tmp_path / "none.png", max_bytes=10)
    assert not (tmp_path / "none.png").exists()


def test_a_confidence_on_a_border_is_in_the_upper_bin() -> None:
    assert bin_numbers(np.array([0.0, 0.0666, 1 / 15, 0.2, 0.999, 1.0])).tolist() == [0, 0, 1, 3, 14, 14]


def test_reliability_bins_hold_every_image() -> None:
    confidence = np.array([0.0, 0.05, 0.5, 0.52, 1.0])
    bins = reliability_bins(confidence, np.array([True, False, True, True, True]))
    assert bins.images.tolist() == [2, 2, 1]
    assert bins.confidence == pytest.approx([0.025, 0.51, 1.0])
    assert bins.accuracy == pytest.approx([0.5, 1.0, 1.0])
