from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

import aerofuse
from aerofuse.data.dataset import PreparedSplit
from aerofuse.data.labels import TASKS, ClassLists
from aerofuse.data.photo import Box, Fit, UnreadablePhotoError, crop_to_box, open_photo
from aerofuse.inference.package import as_batch, fit_photo, read_photo
from aerofuse.inference.predictor import Predictor
from aerofuse.inference.unfamiliarity import load_unfamiliarity
from aerofuse.ingest.file_source import FileSource
from aerofuse.ingest.intake import IntakeSettings
from aerofuse.ingest.params import SPLITS, SplitParams
from aerofuse.ingest.prepare import prepare_photos
from aerofuse.ingest.table_source import list_table
from aerofuse.metrics.predictions import prediction_table
from aerofuse.models.heads import scale_logits
from tests.inference.small_packages import ARCHITECTURES, TEMPERATURES, write_model, write_small_package
from tests.ingest.photo_folder import PhotoFolder, draw_folder

SIDE_PX = 96


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return aerofuse.load(write_model(tmp_path_factory.mktemp("models") / "hybrid", "concat"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> PhotoFolder:
    """Photos of every kind that people have: turned, grey, CMYK, transparent, deep, large, tall."""
    folder = draw_folder(tmp_path_factory.mktemp("photos"), photos=24, side_px=200)
    wide = folder.image(0)
    turned = Image.Exif()
    turned[0x0112] = 6
    wide.save(folder.add("turned.jpg"), exif=turned)
    wide.convert("L").save(folder.add("grey.png"))
    wide.convert("CMYK").save(folder.add("cmyk.jpg"))
    transparent = wide.convert("RGBA")
    transparent.putalpha(100)
    transparent.save(folder.add("transparent.webp"))
    Image.fromarray(np.asarray(wide.convert("L")).astype(np.uint16) * 257).save(folder.add("deep.tif"))
    wide.resize((3000, 2250)).save(folder.add("large.jpg"))
    wide.resize((1501, 997)).save(folder.add("odd.jpg"))
    wide.resize((997, 1501)).save(folder.add("odd_turned.jpg"), exif=turned)
    wide.rotate(90, expand=True).save(folder.add("tall.bmp"))
    wide.resize((60, 45)).save(folder.add("small.gif"))
    folder.write()
    return folder


def prepared(root: Path, labels: Path, settings: IntakeSettings, out: Path) -> dict[str, PreparedSplit]:
    """The photos of a table in splits."""
    source = FileSource(list_table(root, labels), settings, out / "work", max_bad_fraction=0.0, duplicate_bits=0)
    prepare_photos(source, SplitParams(train=0.5, validation=0.25, test=0.25, seed=0), SIDE_PX, out)
    classes = ClassLists.load(out)
    return {name: PreparedSplit(out / f"{name}.arrow", classes) for name in SPLITS}


@pytest.mark.parametrize("fit", get_args(Fit))
def test_a_photo_file_gives_the_pixels_of_the_prepared_split(
    folder: PhotoFolder, predictor: Predictor, fit: Fit, tmp_path: Path
) -> None:
    """Training and prediction share one preprocessing: to the bit, whatever the file."""
    seen = set()
    for photos in prepared(folder.root, folder.labels, IntakeSettings(SIDE_PX, fit=fit), tmp_path).values():
        assert photos.fit == fit
        for number in range(len(photos)):
            pixels = read_photo(folder.root / photos.name(number), replace(predictor.record, fit=fit))
            assert torch.equal(as_batch([pixels])[0], photos[number][0]), photos.name(number)
            seen.add(photos.name(number))
    assert seen == set(folder.table["filename"])


@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
def test_photos_with_boxes_are_cropped_for_training_alone(
    folder: PhotoFolder, predictor: Predictor, fit: Fit, tmp_path: Path
) -> None:
    splits = ["train", "validation"] * 12 + ["test"] * (len(folder.table) - 24)  # the odd ones
    folder.table.assign(xmin=11, ymin=7, xmax=57, ymax=40, split=splits).to_csv(tmp_path / "boxes.csv", index=False)
    settings = IntakeSettings(SIDE_PX, crop_padding=0.1, fit=fit)
    record = replace(predictor.record, fit=fit)
    for split, photos in prepared(folder.root, tmp_path / "boxes.csv", settings, tmp_path).items():
        for number in range(len(photos)):
            path = folder.root / photos.name(number)
            if split == "train":
                part = crop_to_box(open_photo(path, 4 * SIDE_PX), Box(11, 7, 57, 40), 0.1)
                pixels = fit_photo(part, record)
            else:
                pixels = read_photo(path, record)
            assert torch.equal(as_batch([pixels])[0], photos[number][0]), photos.name(number)


def test_a_banner_is_cut_as_preparing_cuts_it(folder: PhotoFolder, predictor: Predictor, tmp_path: Path) -> None:
    listing = list_table(folder.root, folder.labels)
    source = FileSource(listing, IntakeSettings(SIDE_PX, banner_px=20), tmp_path, max_bad_fraction=0, duplicate_bits=0)
    (photo,) = source.photos([0], SIDE_PX, for_training=False)
    path = folder.root / photo.filename
    # The source's photo was written as JPEG once; the split does it once more.
    from_file = read_photo(path, predictor.record, banner_px=20)
    assert np.abs(from_file.astype(int) - photo.image).mean() < 1
    assert np.abs(from_file.astype(int) - read_photo(path, predictor.record)).mean() > 5


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_predictions_are_those_of_the_evaluation(name: str, tmp_path: Path, prepared_folder: Path) -> None:
    classes = ClassLists.load(prepared_folder)
    predictor = aerofuse.load(write_model(tmp_path, name, classes, confident=True))
    split = PreparedSplit(prepared_folder / "test.arrow", classes)
    images = torch.stack([split[number][0] for number in range(len(split))])
    with torch.no_grad():
        outputs = predictor.model(images)
    scaled = scale_logits(outputs, TEMPERATURES)
    table = prediction_table(split.labels, scaled, classes.types, classes.airlines, uncalibrated=outputs)
    predictions = predictor.predict_batch(images)
    assert [found.type for found in predictions] == table["type_predicted"].tolist()
    assert [found.type_confidence for found in predictions] == pytest.approx(table["type_confidence"].tolist())
    for found, names in zip(predictions, table["type_top5"], strict=True):
        assert [candidate.name for candidate in found.type_top5] == names
        assert found.type_confidence == found.type_top5[0].confidence
    tasks = ARCHITECTURES[name].tasks
    if tasks == TASKS:
        assert [found.airline for found in predictions] == table["airline_predicted"].tolist()
        for column in ("airline_confidence", "quality_score"):
            assert [getattr(found, column) for found in predictions] == pytest.approx(table[column].tolist())
        for task in ("clarity", "block"):
            assert [getattr(found, task) for found in predictions] == pytest.approx(table[f"{task}_predicted"].tolist())
    else:
        assert {(found.airline, found.clarity, found.block, found.quality_score) for found in predictions} == {
            (None, None, None, None)
        }


def test_the_record_is_that_of_the_specification(predictor: Predictor) -> None:
    found = predictor.predict(np.full((40, 60, 3), 128, np.uint8)).to_dict()
    assert list(found) == [
        "type",
        "type_confidence",
        "type_top5",
        "airline",
        "airline_confidence",
        "clarity",
        "block",
        "quality_score",
        "unfamiliar_score",
        "unfamiliar",
    ]
    assert len(found["type_top5"]) == 5
    assert list(found["type_top5"][0]) == ["name", "confidence"]
    assert found["quality_score"] == pytest.approx(found["clarity"] * (1 - found["block"]))


def test_predictions_of_a_package_say_how_unfamiliar_a_photo_is(tmp_path: Path, predictor: Predictor) -> None:
    """As its statistics say of the features; the folder of a training stage has none."""
    package = aerofuse.load(write_small_package(tmp_path / "package", "concat"))
    assert package.knows_unfamiliar
    images = torch.randint(0, 256, (3, 3, SIDE_PX, SIDE_PX), dtype=torch.uint8)
    statistics = load_unfamiliarity(tmp_path / "package", package.model.num_features)
    assert statistics is not None
    with torch.no_grad():
        scores = statistics(package.model.get_features(images))
    predictions = package.predict_batch(images)
    assert [found.unfamiliar_score for found in predictions] == pytest.approx(scores.tolist())
    assert [found.unfamiliar for found in predictions] == (scores > 0.5).tolist()
    assert not predictor.knows_unfamiliar
    for found, other in zip(predictions, predictor.predict_batch(images), strict=True):
        assert other.unfamiliar_score is other.unfamiliar is None
        assert (found.type, found.airline) == (other.type, other.airline)


def test_a_prediction_without_names(predictor: Predictor) -> None:
    found = predictor.predict(np.full((40, 60, 3), 128, np.uint8))
    silent = found.without_names()
    assert [silent.type, silent.type_confidence, silent.airline, silent.airline_confidence] == [None] * 4
    assert silent.type_top5 == ()
    assert (silent.clarity, silent.block, silent.quality_score) == (found.clarity, found.block, found.quality_score)


def test_a_file_and_its_pixels_give_the_same(predictor: Predictor, folder: PhotoFolder) -> None:
    path = folder.root / "small.gif"  # smaller than the model's images: nothing is reduced while it is read
    assert predictor.predict(path) == predictor.predict(np.asarray(Image.open(path).convert("RGB")))
    assert predictor.predict(str(path)) == predictor.predict(path)


def test_files_come_back_in_order_and_bad_ones_with_the_reason(
    predictor: Predictor, folder: PhotoFolder, tmp_path: Path
) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"nothing")
    good = [folder.root / name for name in folder.table["filename"][:4]]
    files = [good[0], tmp_path / "bad.jpg", good[1], tmp_path / "none.jpg", good[2], good[3]]
    for batch_size in (1, 2, 4, 100):
        results = list(predictor.predict_files(files, batch_size=batch_size))
        assert [result.file for result in results] == files
        assert [result.problem for result in results] == [None, "not an image", None, "no such file", None, None]
        for result in (results[number] for number in (0, 2, 4, 5)):
            assert result.prediction is not None
            alone = predictor.predict(result.file)
            assert result.prediction.type == alone.type
            assert result.prediction.type_confidence == pytest.approx(alone.type_confidence, abs=1e-5)
        assert results[1].prediction is results[3].prediction is None
    assert list(predictor.predict_files([])) == []


def test_files_are_read_a_batch_at_a_time(predictor: Predictor, folder: PhotoFolder) -> None:
    asked: list[str] = []

    def files() -> Iterator[Path]:
        for name in folder.table["filename"]:
            asked.append(name)
            yield folder.root / name

    next(predictor.predict_files(files(), batch_size=3))
    assert len(asked) == 3


def test_what_is_no_photo_is_refused(predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(UnreadablePhotoError, match="no such file"):
        predictor.predict(tmp_path / "none.jpg")
    for wrong in (np.zeros((9, 9, 3)), np.zeros((9, 9), np.uint8), np.zeros((0, 9, 3), np.uint8)):
        with pytest.raises(ValueError, match=r"a photo is uint8 \[H, W, 3\]"):
            predictor.predict(wrong)  # type: ignore[arg-type]
    for images in (torch.zeros(1, 3, 96, 96), torch.zeros(1, 3, 64, 64, dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"images are uint8 \[B, 3, 96, 96\]"):
            predictor.predict_batch(images)


def test_a_diverged_model_says_so(tmp_path: Path) -> None:
    predictor = aerofuse.load(write_model(tmp_path, "single_task"))
    with torch.no_grad():
        next(predictor.model.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match="type: the model predicts NaN or infinity"):
        predictor.predict(np.zeros((20, 20, 3), np.uint8))


def test_pixels_are_those_of_the_square(folder: PhotoFolder, predictor: Predictor) -> None:
    fitted = fit_photo(folder.image(0).convert("RGB"), predictor.record)
    assert fitted.shape == (SIDE_PX, SIDE_PX, 3)
    assert np.abs(fitted[0].astype(int) - (124, 116, 104)).max() < 8  # the padding's colour, above a wide photo
