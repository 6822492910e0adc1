"""Augmentation that leaves every label true.

Mirroring and colour jitter change neither how sharp a photo is nor how much of the aircraft is hidden. Blur, noise,
rescaling, crops and cut-outs do, so they are not offered.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from aerofuse.common.params import Section
from aerofuse.data.dataset import Augmentation, Image, derive_seed


class AugmentationParams(Section):
    """Only what leaves clarity and block true: mirroring and colour."""

    horizontal_flip: bool
    color_jitter: float = Field(ge=0, le=0.5, description="largest relative change of brightness, contrast, saturation")


def make_augmentation(params: AugmentationParams, seed: int) -> Augmentation:
    """Return a function from an RGB image `[H, W, 3]` to an augmented one of the same size.

    The result depends on `seed` and on the numbers given with the image, not on what was augmented before. So every
    process and every order gives the same images.
    """
    # Albumentations would look on the network for a newer version when it is imported.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    steps = []
    if params.horizontal_flip:
        steps.append(albumentations.HorizontalFlip(p=0.5))
    if params.color_jitter > 0:
        change = (1 - params.color_jitter, 1 + params.color_jitter)
        # Liveries are told by their hues.
        jitter = albumentations.ColorJitter(brightness=change, contrast=change, saturation=change, hue=(0, 0), p=0.8)
        steps.append(jitter)
    pipeline = albumentations.Compose(steps)

    def augment(image: Image, numbers: Sequence[int]) -> Image:
        own_seed = derive_seed(seed, *numbers)
        pipeline.set_random_state(np.random.default_rng(own_seed), random.Random(own_seed))
        augmented: Image = pipeline(image=image)["image"]
        return augmented

    return augment
