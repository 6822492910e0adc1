"""Augmentation, and whether the labels of clarity and block stay true under it.

Mirroring and colour jitter change neither how sharp a photo is nor how much of the aircraft is hidden. Crops, turns,
rescaling and strong changes of colour do. A photo that gets those is trained on without its clarity and block.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from aerofuse.common.params import Section
from aerofuse.data.dataset import Augmentation, Augmented, Image, derive_seed

if TYPE_CHECKING:
    import albumentations


class StrongAugmentationParams(Section):
    """What some of the photos get besides: a random resized crop, then operations of RandAugment (arXiv 1909.13719)."""

    probability: float = Field(
        ge=0, le=1, description="share of the photos; they are trained on without clarity, block"
    )
    smallest_crop: float = Field(gt=0, le=1, description="least share of the photo's area that a crop keeps; 1: none")
    operations: int = Field(ge=0, le=6, description="how many of RandAugment's operations each of them gets")
    magnitude: float = Field(ge=0, le=1, description="how strong those are")


class AugmentationParams(Section):
    """Mirroring and colour, which leave every label true, and what does not."""

    horizontal_flip: bool
    color_jitter: float = Field(ge=0, le=0.5, description="largest relative change of brightness, contrast, saturation")
    strong: StrongAugmentationParams = StrongAugmentationParams(
        probability=0.0, smallest_crop=1.0, operations=0, magnitude=0.0
    )


def make_augmentation(params: AugmentationParams, seed: int) -> Augmentation:
    """Return a function from an RGB image `[H, W, 3]` to an augmented one of the same size.

    The result depends on `seed` and on the numbers given with the image, not on what was augmented before. So every
    process and every order gives the same images.
    """
    # Albumentations would look on the network for a newer version when it is imported.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    steps: list[albumentations.BasicTransform] = []
    if params.horizontal_flip:
        steps.append(albumentations.HorizontalFlip(p=0.5))
    if params.color_jitter > 0:
        change = (1 - params.color_jitter, 1 + params.color_jitter)
        # Liveries are told by their hues.
        jitter = albumentations.ColorJitter(brightness=change, contrast=change, saturation=change, hue=(0, 0), p=0.8)
        steps.append(jitter)
    gentle = albumentations.Compose(steps)
    strong: albumentations.Compose | None = None

    def augment(image: Image, numbers: Sequence[int]) -> Augmented:
        nonlocal strong
        own_seed = derive_seed(seed, *numbers)
        gentle.set_random_state(np.random.default_rng(own_seed), random.Random(own_seed))
        augmented: Image = gentle(image=image)["image"]
        other_seed = derive_seed(own_seed, 1)
        if params.strong.probability <= random.Random(other_seed).random():
            return Augmented(augmented)
        if strong is None:  # it is made for the size of the images
            strong = _strong(params.strong, image.shape[0], image.shape[1])
        strong.set_random_state(np.random.default_rng(other_seed), random.Random(other_seed))
        return Augmented(strong(image=augmented)["image"], labels_are_true=False)

    return augment


def _strong(params: StrongAugmentationParams, height: int, width: int) -> albumentations.Compose:
    import albumentations as library

    size, strength = (height, width), params.magnitude
    steps: list[library.BasicTransform | library.SomeOf] = []
    if params.smallest_crop < 1:
        steps.append(library.RandomResizedCrop(size, scale=(params.smallest_crop, 1.0), ratio=(0.85, 1.18), p=1.0))
    operations = [
        library.Affine(rotate=(-30 * strength, 30 * strength), p=1.0),
        library.Affine(shear=(-15 * strength, 15 * strength), p=1.0),
        library.Affine(translate_percent=(-0.2 * strength, 0.2 * strength), p=1.0),
        library.AutoContrast(p=1.0),
        library.Equalize(p=1.0),
        library.Posterize(num_bits=round(8 - 4 * strength), p=1.0),
        library.RandomBrightnessContrast((-0.5 * strength, 0.5 * strength), (-0.5 * strength, 0.5 * strength), p=1.0),
        library.Sharpen(alpha=(0.0, max(strength, 1e-3)), p=1.0),
        library.GaussianBlur(sigma_limit=(0.1, 0.1 + strength), p=1.0),
    ]
    if params.operations > 0:
        steps.append(library.SomeOf(operations, n=params.operations, replace=False, p=1.0))
    return library.Compose(steps)
