from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from aerofuse.backbones.backbone import THIN_BACKBONES, create_backbone
from aerofuse.backbones.weights import BUNDLED_FOLDER, file_sha256
from aerofuse.common.files import load_weights
from tools.pretraining import PretrainingParams, draw, load_recipe, pretrain, revision

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recipe() -> PretrainingParams:
    """The real recipe with few photos, one epoch a lesson and one thread."""
    params = load_recipe()
    photos = {
        name: its.model_copy(
            update={"synthetic": its.synthetic.model_copy(update={"num_images": 80}), "num_validation_images": 16}
        )
        for name, its in params.photos.items()
    }
    lessons = {
        name: lesson.model_copy(update={"epochs": dict.fromkeys(lesson.epochs, 1)})
        for name, lesson in params.lessons.items()
    }
    return params.model_copy(update={"photos": photos, "lessons": lessons, "num_threads": 1})


@pytest.fixture(scope="module")
def photos(recipe: PretrainingParams, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretraining")
    # The others are drawn by the lesson that wants them.
    draw(recipe, folder, 1, ["easy", "full", "broad", "broader"])
    return folder


def test_the_recipe_teaches_every_thin_backbone_and_no_other() -> None:
    assert {name for lesson in load_recipe().lessons.values() for name in lesson.epochs} == set(THIN_BACKBONES)


def test_a_lesson_without_its_photos_is_refused(recipe: PretrainingParams) -> None:
    content = recipe.model_dump()
    content["lessons"]["find"]["photos"] = "holiday"
    with pytest.raises(ValueError, match="lesson 'find' wants photos 'holiday'; there are easy, full"):
        PretrainingParams.model_validate(content)


def test_a_lesson_whose_teacher_has_not_learned_is_refused(recipe: PretrainingParams) -> None:
    content = recipe.model_dump()
    content["lessons"]["follow"]["teacher"]["lesson"] = "follow"
    with pytest.raises(ValueError, match="lesson 'follow': convnext_thin does not take lesson 'follow'"):
        PretrainingParams.model_validate(content)


def test_unknown_photos_are_refused(recipe: PretrainingParams, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no photos holiday; the recipe has easy, full"):
        draw(recipe, tmp_path, 1, ["easy", "holiday"])
    assert not list(tmp_path.iterdir())


def test_weights_fit_their_backbones_and_are_no_longer_random(
    recipe: PretrainingParams, photos: Path, tmp_path: Path
) -> None:
    for name in THIN_BACKBONES:  # the ConvNeXt first: it is the Swin's teacher
        pretrain(name, recipe, photos, tmp_path)
        state = load_weights(tmp_path / f"{name}.safetensors")
        assert {tensor.dtype for tensor in state.values() if tensor.is_floating_point()} == {torch.float16}
        torch.manual_seed(recipe.seed)
        fresh = create_backbone(name, image_size_px=recipe.image_size).model.state_dict()
        assert {key: tensor.shape for key, tensor in state.items()} == {key: t.shape for key, t in fresh.items()}
        matrices = [key for key, t in fresh.items() if t.ndim > 1 and t.is_floating_point()]
        assert not any(torch.equal(state[key], fresh[key].half()) for key in matrices)
        record = json.loads((tmp_path / f"{name}.json").read_text())
        assert record["sha256"] == file_sha256(tmp_path / f"{name}.safetensors")


def test_continued_from_a_lesson_the_result_is_the_same(
    recipe: PretrainingParams, photos: Path, tmp_path: Path
) -> None:
    name = THIN_BACKBONES[0]
    last = [lesson for lesson, its in recipe.lessons.items() if name in its.epochs][-1]
    pretrain(name, recipe, photos, tmp_path / "whole")
    pretrain(name, recipe, photos, tmp_path / "continued", first_lesson=last)
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "continued" / path.name).read_bytes() == path.read_bytes()


def test_weights_that_are_not_there_are_refused(recipe: PretrainingParams, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").symlink_to(photos / "photos")
    with pytest.raises(FileNotFoundError, match="no weights of convnext_thin after lesson 'find'"):
        pretrain("convnext_thin", recipe, tmp_path, tmp_path / "output", first_lesson="name")


def test_an_unknown_lesson_is_refused(recipe: PretrainingParams, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no lesson 'calculus'; there are find"):
        pretrain(THIN_BACKBONES[0], recipe, photos, tmp_path, first_lesson="calculus")


def test_the_bundled_weights_were_made_by_the_recipe_in_the_repository() -> None:
    for name in THIN_BACKBONES:
        record = json.loads((BUNDLED_FOLDER / f"{name}.json").read_text())
        assert record["revision"] == revision(name, load_recipe())
