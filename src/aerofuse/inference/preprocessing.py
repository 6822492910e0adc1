"""From a photo to the pixels that a model sees: what `prepare` does with photos, done by the same functions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from aerofuse.data.photo_files import PADDING_COLOUR, fit_square, open_photo
from aerofuse.data.store import JPEG_QUALITY, decode_image, encode_image
from aerofuse.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD

_JPEG_WRITES = 2  # when a file is taken in, and when it is put into its split

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Preprocessing:
    """What is done to a photo, as values: for programs that read a package without this one.

    The photo is turned as its EXIF data says and made RGB; scaled as a whole into a square of `image_size_px`, what is
    left over filled with `padding_rgb`; and `jpeg_writes` times written as JPEG without chroma subsampling and read
    again, as the photos that were trained on, which lose little by it but change in many pixels. `mean` and `std`, of
    values in 0..1, are part of the model.
    """

    image_size_px: int
    fit: str = "pad"
    interpolation: str = "bicubic"
    padding_rgb: tuple[int, int, int] = PADDING_COLOUR
    jpeg_quality: int = JPEG_QUALITY
    jpeg_writes: int = _JPEG_WRITES
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


def read_photo(path: Path, image_size_px: int, *, banner_px: int = 0) -> Pixels:
    """A photo file as a model is given it, RGB `[image_size_px, image_size_px, 3]`, the lowest `banner_px` rows cut.

    Raises `UnreadablePhotoError` with the reason.
    """
    return fit_photo(open_photo(path, image_size_px, banner_px=banner_px).image, image_size_px)


def fit_photo(image: Image.Image, image_size_px: int) -> Pixels:
    """An RGB image, likewise."""
    pixels = fit_square(image, image_size_px)
    for _ in range(_JPEG_WRITES):
        pixels = decode_image(encode_image(pixels))
    return pixels


def as_batch(photos: list[Pixels]) -> Tensor:
    """Photos `[H, W, 3]` as one tensor, uint8 `[B, 3, H, W]`."""
    return torch.from_numpy(np.ascontiguousarray(np.stack(photos).transpose(0, 3, 1, 2)))
