"""A few made-up photos, some of their labels missing."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from aerofuse.data.labels import ClassLists
from aerofuse.data.photo import Photo

CLASSES = ClassLists(("A320", "运-20"), ("Ærø",))


def made_up_photos(number: int = 5) -> Iterator[Photo]:
    rng = np.random.default_rng(0)
    for index in range(number):
        coarse = rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)
        image = np.asarray(cv2.resize(coarse, (48, 48), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)
        known = index % 2 == 0
        yield Photo(
            image,
            f"{index}.jpg",
            "运-20" if known else "A320",
            "Ærø" if known else None,
            index / 10 if known else None,
            None if known else 0.5,
            f"R{index}" if known else None,
        )
