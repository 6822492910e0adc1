from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from aerofuse.data.dataset import PreparedSplit
from aerofuse.data.store import write_photos
from aerofuse.data.transforms import AugmentationParams, make_augmentation
from tests.data.made_up_photos import CLASSES, made_up_photos


def test_augmentation_only_mirrors_and_recolours(tmp_path: Path) -> None:
    """What the labels say stays true: mirrored back, edges are where they were and as sharp as they were."""
    write_photos(tmp_path / "some.arrow", made_up_photos())
    image = PreparedSplit(tmp_path / "some.arrow", CLASSES).image(0)
    flip = make_augmentation(AugmentationParams(horizontal_flip=True, color_jitter=0.0), seed=0)
    seen = {flip(image, (number,)).tobytes() for number in range(20)}
    assert seen == {image.tobytes(), image[:, ::-1].tobytes()}
    colour = make_augmentation(AugmentationParams(horizontal_flip=False, color_jitter=0.1), seed=0)
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(float).ravel()
    changed = [colour(image, (number,)) for number in range(20)]
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
        return [augment(image, (number,)).tobytes() for number in range(5)]

    assert run(0) == run(0)
    assert run(0) != run(1)
