from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from aerofuse.data.dataset import Draw, PreparedSplit
from aerofuse.data.store import write_photos
from aerofuse.data.transforms import AugmentationParams, StrongAugmentationParams, make_augmentation
from tests.data.made_up_photos import CLASSES, made_up_photos


def test_augmentation_only_mirrors_and_recolours(tmp_path: Path) -> None:
    """What the labels say stays true: mirrored back, edges are where they were and as sharp as they were."""
    write_photos(tmp_path / "some.arrow", made_up_photos())
    image = PreparedSplit(tmp_path / "some.arrow", CLASSES).image(0)
    flip = make_augmentation(AugmentationParams(horizontal_flip=True, color_jitter=0.0), seed=0)
    seen = {flip(image, (number,)).image.tobytes() for number in range(20)}
    assert seen == {image.tobytes(), image[:, ::-1].tobytes()}
    colour = make_augmentation(AugmentationParams(horizontal_flip=False, color_jitter=0.1), seed=0)
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(float).ravel()
    changed = [colour(image, (number,)).image for number in range(20)]
    assert len({other.tobytes() for other in changed}) > 10
    for other in changed:
        other_gray = cv2.cvtColor(other, cv2.COLOR_RGB2GRAY).astype(float).ravel()
        assert np.corrcoef(gray, other_gray)[0, 1] > 0.98


def test_augmentation_is_a_function_of_its_seed(tmp_path: Path) -> None:
    write_photos(tmp_path / "some.arrow", made_up_photos())
    image = PreparedSplit(tmp_path / "some.arrow", CLASSES).image(0)
    params = AugmentationParams(horizontal_flip=True, color_jitter=0.1)

    def run(seed: int) -> list[bytes]:
        augment = make_augmentation(params, seed)
        return [augment(image, (number,)).image.tobytes() for number in range(5)]

    assert run(0) == run(0)
    assert run(0) != run(1)


def test_what_is_augmented_strongly_loses_the_labels_that_are_no_longer_true(tmp_path: Path) -> None:
    write_photos(tmp_path / "some.arrow", made_up_photos())
    strong = StrongAugmentationParams(probability=0.5, smallest_crop=0.4, operations=2, magnitude=0.7)
    params = AugmentationParams(horizontal_flip=False, color_jitter=0.0, strong=strong)
    split = PreparedSplit(tmp_path / "some.arrow", CLASSES, make_augmentation(params, seed=0))
    plain = PreparedSplit(tmp_path / "some.arrow", CLASSES)[0]
    changed = 0
    for epoch in range(40):
        image, targets = split[Draw(0, epoch)]
        assert image.shape == plain[0].shape
        assert torch.equal(targets["type"], plain[1]["type"])
        assert targets["clarity"].isnan() == (not torch.equal(image, plain[0]))
        changed += bool(targets["clarity"].isnan())
    assert 10 < changed < 30
