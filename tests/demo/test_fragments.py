from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import aerofuse
from aerofuse.data.labels import ClassLists
from aerofuse.data.photo import UnreadablePhotoError
from aerofuse.demo.fragments import PICTURE_PX, PhotoAnswers, message, photo_page
from aerofuse.demo.launch import write_examples
from aerofuse.inference.unfamiliarity import NOTICE
from tests.inference.small_packages import write_model, write_small_package
from tests.serving.photos import write_photo


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photo(tmp_path_factory.mktemp("photos") / "photo.jpg")


@pytest.mark.parametrize("name", ["attention", "concat"])
def test_a_hybrid(tmp_path: Path, photo: Path, name: str) -> None:
    package = write_small_package(tmp_path / "package", name)
    answer = PhotoAnswers(package).answer(photo)
    assert answer.prediction == aerofuse.load(package).predict(photo)
    assert list(answer.maps) == ["convnext_thin", "swin_thin"]
    for picture in (answer.photo, *answer.maps.values()):
        assert picture.shape == (PICTURE_PX, PICTURE_PX, 3)
    assert not np.array_equal(answer.maps["convnext_thin"], answer.maps["swin_thin"])
    assert answer.shares is not None
    if name == "attention":
        assert sum(answer.shares.values()) == pytest.approx(1, abs=1e-5)
    page = photo_page(answer)
    for text in (answer.prediction.airline, *(candidate.name for candidate in answer.prediction.type_top5)):
        assert str(text) in page
    assert f"{answer.prediction.quality_score:.2f}" in page
    assert page.count("<img ") == 3
    title = {"attention": "What the fusion gives each branch", "concat": "What each branch adds to this answer"}[name]
    assert title in page
    assert NOTICE in page
    assert f"{answer.prediction.unfamiliar_score:.2f}" in page
    assert NOTICE not in photo_page(replace(answer, prediction=replace(answer.prediction, unfamiliar=False)))


def test_a_baseline_of_one_branch_and_one_head(tmp_path: Path, photo: Path) -> None:
    answer = PhotoAnswers(write_model(tmp_path / "model", "single_task")).answer(photo)
    assert list(answer.maps) == ["convnext_thin"]
    assert answer.shares is None
    page = photo_page(answer)
    assert page.count("<img ") == 2
    assert "Airline" not in page
    assert "Quality" not in page
    assert "Unfamiliar" not in page


def test_the_photo_is_shown_as_the_model_sees_it(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", "single_task", fit="crop")
    wide = Image.new("RGB", (300, 100), "red")
    wide.paste("blue", (100, 0, 200, 100))
    wide.save(tmp_path / "wide.png")
    answer = PhotoAnswers(model).answer(tmp_path / "wide.png")
    assert (answer.photo == (0, 0, 255)).all()
    assert answer.prediction == aerofuse.load(model).predict(tmp_path / "wide.png")
    assert answer.prediction == aerofuse.load(model).predict(answer.photo)


def test_names_are_no_markup(tmp_path: Path, photo: Path) -> None:
    classes = ClassLists(("<script>a</script>", "B&W"), ("<img src=x>",))
    page = photo_page(PhotoAnswers(write_model(tmp_path / "model", "attention", classes)).answer(photo))
    assert "<script>" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;a&lt;/script&gt;" in page
    assert "<b>" not in message("<b>")


def test_what_is_no_photo(tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"nothing")
    answers = PhotoAnswers(write_model(tmp_path / "model", "single_task"))
    with pytest.raises(UnreadablePhotoError, match="not an image"):
        answers.answer(bad)


def test_examples_are_photos_of_the_test_split(prepared_folder: Path, tmp_path: Path) -> None:
    examples = write_examples(prepared_folder, tmp_path)
    names = [name for _, name in examples]
    assert 2 <= len(names) <= 6
    assert len(set(names)) == len(names)
    assert set(names) <= set(ClassLists.load(prepared_folder).types)
    for file, _ in examples:
        assert file.read_bytes().startswith(b"\xff\xd8")
    assert write_examples(tmp_path / "nothing", tmp_path) == []
