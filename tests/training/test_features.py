"""Heads that learn from features: the same inputs and outputs as with images, and the features are computed once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from aerofuse.data.dataset import Draw, PreparedSplit
from aerofuse.data.labels import ClassLists
from aerofuse.data.transforms import AugmentationParams, StrongAugmentationParams, make_augmentation
from aerofuse.models.architecture import Architecture, HybridModel, hybrid_architecture
from aerofuse.training.features import FusedHeads, Packing, SeenPhotos, _Look, see_photos

SIZE_PX, VIEWS = 96, 3
STRONG = StrongAugmentationParams(probability=0.5, smallest_crop=0.6, operations=1, magnitude=0.5)
AUGMENTATION = AugmentationParams(horizontal_flip=True, color_jitter=0.2, strong=STRONG)


class Seen:
    """A hybrid, the photos, and what its branches found in them."""

    def __init__(self, prepared: Path, folder: Path, method: str, sees_mirrored: bool) -> None:
        classes = ClassLists.load(prepared)
        torch.manual_seed(0)
        architecture = hybrid_architecture("convnext_thin", "swin_thin", method, 0.1, 0.2, SIZE_PX)
        model = Architecture(**vars(architecture) | {"sees_mirrored": sees_mirrored}).build(classes)
        assert isinstance(model, HybridModel)
        self.hybrid = model
        model.train_only({"fusion", "heads"}).train()
        self.photos = PreparedSplit(prepared / "train.arrow", classes, make_augmentation(AUGMENTATION, 0))
        self.judged = PreparedSplit(prepared / "validation.arrow", classes)
        self.packing = Packing.of(model, SIZE_PX)
        self.folder = folder
        self.found = self.see()
        self.learner = FusedHeads(model, self.packing)

    def see(self) -> SeenPhotos:
        accelerator = Accelerator(cpu=True)
        return see_photos(self.hybrid, self.packing, self.photos, self.judged, VIEWS, 32, 0, accelerator, self.folder)


@pytest.fixture(
    scope="module", params=[("concat", False), ("cross_attention", True)], ids=["vectors", "maps, mirrored"]
)
def seen(request: pytest.FixtureRequest, prepared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    return Seen(prepared_folder, tmp_path_factory.mktemp("features") / "key", *request.param)


def test_heads_see_in_each_epoch_what_the_backbones_would(seen: Seen) -> None:
    views = set()
    for epoch in range(1, VIEWS + 2):
        for photo in (0, 1, 5):
            packed, targets = seen.found.train[Draw(photo, epoch)]
            # A photo's views take turns; each is that of the epoch of its number.
            view = (epoch + photo) % VIEWS
            views.add((photo, view))
            image, expected = seen.photos[Draw(photo, view + 1)]
            seen.hybrid.eval()
            features = seen.packing.pack(seen.hybrid.branch_features(image[None]))
            torch.testing.assert_close(packed, features, atol=1e-5, rtol=1e-4)
            for task, value in expected.items():
                torch.testing.assert_close(targets[task], value, equal_nan=True)
    assert len(views) == 3 * VIEWS
    truths = [seen.found.train[Draw(photo, 1)][1]["clarity"] for photo in range(len(seen.photos))]
    assert 0 < torch.stack(truths).isnan().sum() < len(truths)  # labels that strong augmentation makes false


def test_a_filler_has_no_labels(seen: Seen) -> None:
    _, targets = seen.found.train[Draw(0, 1, is_filler=True)]
    assert targets["clarity"].isnan()
    assert targets["type"] < 0


def test_answers_are_those_of_the_whole_model(seen: Seen) -> None:
    for index in (0, 3):
        packed, targets = seen.found.validation[index]
        image, expected = seen.judged[index]
        assert len(packed) == 1 + seen.hybrid.sees_mirrored
        with torch.no_grad():
            answers, whole = seen.learner.eval()(packed[None]), seen.hybrid.eval()(image[None])
        for task, answer in whole.items():
            torch.testing.assert_close(answers[task], answer, atol=1e-5, rtol=1e-4)
        assert {task: value.tolist() for task, value in targets.items()} == {
            task: value.tolist() for task, value in expected.items()
        }


def test_what_the_heads_learn_the_hybrid_has_learned(seen: Seen) -> None:
    names = set(seen.learner.state_dict())
    assert names == {name for name in seen.hybrid.state_dict() if name.startswith(("fusion.", "heads."))}
    with torch.no_grad():
        for parameter in seen.learner.parameters():
            parameter.add_(0.01)
    assert all(torch.equal(seen.learner.state_dict()[name], seen.hybrid.state_dict()[name]) for name in names)


def test_photos_are_seen_once(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the backbones ran again")

    monkeypatch.setattr(_Look, "forward", refuse)
    again = seen.see()
    assert torch.equal(again.train[Draw(2, 1)][0], seen.found.train[Draw(2, 1)][0])
    assert again.seconds == seen.found.seconds > 0


def test_older_features_are_removed(seen: Seen) -> None:
    first = seen.folder
    for name in ("second", "third"):
        seen.folder = first.with_name(name)
        seen.see()
    assert sorted(path.name for path in first.parent.iterdir()) == ["second", "third"]
    seen.folder = first
