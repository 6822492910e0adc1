"""A model package: a folder with weights, record, preprocessing and model card; and how photos become its input."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pydantic import BeforeValidator, TypeAdapter, ValidationError
from torch import Tensor

from aerofuse.common.files import write_atomically
from aerofuse.data.jpeg import JPEG_QUALITY, decode_image, encode_image
from aerofuse.data.photo import JPEG_SIDES, LARGE_PIXELS, PADDING_COLOUR, REDUCED_SIDES, Fit, fit_square, open_photo
from aerofuse.inference.unfamiliarity import STATISTICS_FILE, Unfamiliarity, save_unfamiliarity
from aerofuse.models.aircraft_model import IMAGENET_MEAN, IMAGENET_STD, AircraftModel
from aerofuse.models.files import (
    RECORD_FILE,
    WEIGHTS_FILE,
    ModelRecord,
    describe,
    load_model,
    read_record,
    read_record_file,
    write_record,
)

CARD_FILE = "README.md"
_JPEG_WRITES = 2  # `prepare` writes a training photo twice: when it takes the file in, and into its split

Pixels = npt.NDArray[np.uint8]
_Fit = Annotated[Fit, BeforeValidator(lambda value: "letterbox" if value == "pad" else value)]  # older packages say pad


@dataclass(frozen=True)
class Preprocessing:
    """How a photo becomes an image for the model, as values for programs that read a package without Aerofuse.

    `steps` says in words what the values mean. They are those of training: writing JPEG, for example, loses little, but
    changes many pixels. `mean` and `std`, of values in 0..1, are part of the model.
    """

    image_size_px: int
    jpeg_sides: int = JPEG_SIDES
    reduced_above_pixels: int = LARGE_PIXELS
    reduced_sides: int = REDUCED_SIDES
    orientation: str = "exif"
    colour: str = "rgb"
    transparent_on: str = "white"
    banner_px: int = 0
    fit: _Fit = "letterbox"
    interpolation: str = "bicubic"
    antialias: bool = True
    rounding: str = "half to even"
    padding_rgb: tuple[int, int, int] = PADDING_COLOUR
    jpeg_quality: int = JPEG_QUALITY
    jpeg_chroma: str = "4:4:4"
    jpeg_writes: int = _JPEG_WRITES
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    @classmethod
    def of(cls, record: ModelRecord) -> Self:
        """Return what prediction does with the model of a record."""
        return cls(record.image_size_px, fit=record.fit)

    def steps(self) -> list[str]:
        """Return every step from a file to the model's input, in order, in words; libraries are named as examples."""
        side_px = self.image_size_px
        return [
            "Read the first frame. Read a JPEG at 1/8, 1/4 or 1/2 of its size, whichever is the first to leave both "
            f"sides at least jpeg_sides * image_size_px = {self.jpeg_sides * side_px} pixels, by libjpeg's scale "
            "(Pillow: Image.draft).",
            f"Where more than reduced_above_pixels = {self.reduced_above_pixels} pixels were read (of a progressive "
            "JPEG: are in the file), replace each square of n x n pixels by its mean, n = shorter side // "
            f"(reduced_sides * image_size_px) = shorter side // {self.reduced_sides * side_px}, if n > 1 and the photo "
            "has 8 bits a channel and no palette (Pillow: Image.reduce).",
            "Turn it as its EXIF orientation says.",
            "Make it RGB of 8 bits: deeper values are divided by the largest that the file's tags or its depth "
            "allow (65535 for 16 bits) and multiplied by 255; colours of a profile in the file that is not sRGB are "
            f"converted to sRGB (Pillow: ImageCms); what is transparent is put on {self.transparent_on}.",
            f"Cut off the lowest banner_px = {self.banner_px} rows. For photos of FGVC-Aircraft these are 20 rows of "
            "the file: 20 times the scale at which it was read, rounded.",
            *self._fitting_steps(),
            f"Write it as JPEG of quality {self.jpeg_quality} with chroma {self.jpeg_chroma} (libjpeg), and read that "
            f"again; jpeg_writes = {self.jpeg_writes} times.",
            f"The input is uint8, RGB, [batch, 3, {side_px}, {side_px}]. The model itself divides by 255, subtracts "
            "mean and divides by std.",
        ]

    def _fitting_steps(self) -> list[str]:
        """Return how it becomes a square."""
        side_px = self.image_size_px
        scaling = (
            "The filter is bicubic with a = -0.5, and is widened by the factor of the scale where that makes the photo "
            "smaller: with antialias (Pillow: Image.resize, BICUBIC)."
        )
        if self.fit == "letterbox":
            return [
                f"Scale it as a whole, up or down, until its longer side is image_size_px = {side_px}. The shorter "
                f"side is rounded half to even. {scaling}",
                f"Put it into the middle of a square of the colour padding_rgb = {list(self.padding_rgb)}; the edge at "
                "its left or top is half of the rest, rounded half to even.",
            ]
        scale = f"Scale it, up or down, to a square whose side is image_size_px = {side_px}. {scaling}"
        if self.fit == "stretch":
            return [f"{scale} Its shape changes."]
        return [
            "Cut out the square in its middle: left or top of it remain (longer - shorter side) // 2 pixels.",
            scale,
        ]


def read_photo(path: Path, record: ModelRecord, *, banner_px: int = 0) -> Pixels:
    """Read a photo file as the input of a record's model, RGB `[side, side, 3]`, without its lowest `banner_px` rows.

    Raises `UnreadablePhotoError` with the reason.
    """
    return fit_photo(open_photo(path, record.image_size_px, banner_px=banner_px).image, record)


def fit_photo(image: Image.Image, record: ModelRecord) -> Pixels:
    """Return an RGB image as the model's input, as `read_photo` does for a file."""
    pixels = fit_square(image, record.image_size_px, record.fit)
    for _ in range(_JPEG_WRITES):
        pixels = decode_image(encode_image(pixels))
    return pixels


def as_batch(photos: list[Pixels]) -> Tensor:
    """Return images `[H, W, 3]` as one tensor, uint8 `[B, 3, H, W]`."""
    return torch.from_numpy(np.ascontiguousarray(np.stack(photos).transpose(0, 3, 1, 2)))


@dataclass(frozen=True)
class PackageRecord:
    """What a package records beyond its model.

    `test` holds the metrics on the test split, `versions` the versions of the software that made the package.
    """

    preprocessing: Preprocessing
    test: Mapping[str, float]
    versions: Mapping[str, str]
    licence: str


def write_package(
    folder: Path, trained: Path, package: PackageRecord, card: str, unfamiliarity: Unfamiliarity | None = None
) -> None:
    """Write a package of the model in the folder `trained`, with the model card `card`; the same gives the same bytes.

    Without `unfamiliarity`, the package does not say which photos are unfamiliar.
    Raises `FileNotFoundError` or `ValueError` for a model that cannot be loaded, or is not calibrated.
    """
    _, record = load_model(trained)
    _check_calibrated(trained, record)
    write_atomically(folder / WEIGHTS_FILE, (trained / WEIGHTS_FILE).read_bytes())
    write_record(folder, record, dataclasses.asdict(package))
    write_atomically(folder / CARD_FILE, card.encode())
    if unfamiliarity is not None:
        save_unfamiliarity(folder, unfamiliarity)
    else:
        (folder / STATISTICS_FILE).unlink(missing_ok=True)


def read_package(folder: Path) -> PackageRecord | None:
    """Read the record of a package; `None` for the folder of a training stage, which is no package.

    Raises `FileNotFoundError`, or `ValueError` where it is damaged.
    """
    content = read_record_file(folder)
    names = [field.name for field in dataclasses.fields(PackageRecord)]
    if not any(name in content for name in names):
        return None
    try:
        return TypeAdapter(PackageRecord).validate_python({name: content.get(name) for name in names})
    except ValidationError as error:
        raise ValueError(f"{folder / RECORD_FILE} is not the record of a package: {describe(error)}") from None


def load_package(folder: Path) -> tuple[AircraftModel, ModelRecord]:
    """Load the model of a package, or of a training stage, with its record, ready to predict.

    Raises `FileNotFoundError` or `ValueError` where a file is missing, damaged, does not fit the other, or asks for
    a preprocessing that this version does not do.
    """
    if not folder.is_dir():
        kind = "a file" if folder.exists() else "no such folder"
        raise FileNotFoundError(
            f"no model in {str(folder)!r}: {kind}; name a folder with {RECORD_FILE} and {WEIGHTS_FILE}, "
            "such as models/aerofuse, which `dvc repro` makes"
        )
    _check_calibrated(folder, read_record(folder))
    package = read_package(folder)
    model, record = load_model(folder)
    if package is not None:
        _check_preprocessing(folder, package.preprocessing, Preprocessing.of(record))
    return model, record


def _check_calibrated(folder: Path, record: ModelRecord) -> None:
    missing = [task for task in record.calibrated_tasks if task not in record.temperatures]
    if missing:
        raise ValueError(
            f"{folder} has no temperature for {', '.join(missing)}: its training has not ended; `dvc repro` ends it"
        )


def _check_preprocessing(folder: Path, asked: Preprocessing, done: Preprocessing) -> None:
    differences = [
        f"{field.name} {getattr(asked, field.name)} instead of {getattr(done, field.name)}"
        for field in dataclasses.fields(Preprocessing)
        if getattr(asked, field.name) != getattr(done, field.name)
    ]
    if differences:
        raise ValueError(
            f"{folder / RECORD_FILE} asks for a preprocessing that this version of aerofuse does not do: "
            f"{', '.join(differences)}; use the version that made it, or make it again"
        )
