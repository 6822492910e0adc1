"""Colours of an image file as 8 bits of sRGB: any depth, range, colour space and transparency."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageFile

from aerofuse.data.image_file import DAMAGED_METADATA, UnreadablePhotoError

_BITS, _PHOTOMETRIC, _MAX_VALUE, _FLOAT_MAX_VALUE = 258, 262, 281, 341  # tags of a TIFF
_DEEP_GREY = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
DEEP = "more than 8 bits a channel"
_FULL_16_BITS = 65535.0
_FLOAT_RANGES = (1.0, 255.0, 4095.0, _FULL_16_BITS)
_DEEP_COLOUR = ("RGB;16", "RGBX;16", "RGBA;16")
_MODES = {"RGB": "RGB", "CMYK": "CMYK", "GRAY": "L"}  # of the pixels, by the colour space of the profile
_GREY = ("1", "L", "LA")
_SAME = 2  # grey levels; a profile that changes no colour by more is one of sRGB
_SRGB = ImageCms.createProfile("sRGB")

Grey = npt.NDArray[np.uint8]


def as_8_bits(file: ImageFile.ImageFile, stream: IO[bytes] | None, remarks: list[str]) -> Image.Image:
    """Return a loaded image with 8 bits a channel, its values scaled by what the file says of their range.

    `stream` has the bytes of a TIFF. Raises `UnreadablePhotoError` for values that are no numbers.
    """
    tags = getattr(file, "tag_v2", {})
    if file.mode in _DEEP_GREY:
        remarks.append(DEEP)
        scaled = _scaled(np.asarray(file), tags, remarks)
        # Pillow turns the values around where 0 is white, but not those with more than 8 bits.
        return Image.fromarray(255 - scaled if tags.get(_PHOTOMETRIC) == 0 else scaled)
    if file.mode in ("RGB", "RGBA") and np.max(tags.get(_BITS, 8)) == 16:
        # Pillow keeps the upper bytes of colours, where values of 12 bits have almost nothing.
        upper = np.asarray(file)
        full, _ = _full_scale(256.0 * upper[..., :3].max() + 255, tags, is_float=False)
        lower = _lower_bytes(stream) if stream is not None and full < _FULL_16_BITS else None
        if lower is not None:
            remarks.append(DEEP)
            scaled = _scaled(upper[..., :3] * np.uint16(256) + lower[..., :3], tags, remarks)
            return Image.fromarray(np.concatenate([scaled, upper[..., 3:]], axis=2))
    return file


def _lower_bytes(stream: IO[bytes]) -> Grey | None:
    """The lower bytes of colours of 16 bits in a TIFF: it is decoded again as if its bytes had the other order."""
    swapped = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}
    stream.seek(0)
    with Image.open(stream, formats=("TIFF",)) as file:
        tiles = []
        for tile in file.tile:
            mode, *others = tile.args if isinstance(tile.args, tuple) else (tile.args,)
            if str(mode)[:-1] not in _DEEP_COLOUR:
                return None
            tiles.append(tile._replace(args=(mode[:-1] + swapped[mode[-1]], *others)))
        file.tile = tiles
        return np.asarray(file)


def as_rgb(image: Image.Image, profile: bytes | None, remarks: list[str]) -> Image.Image:
    """Return an image with 8 bits a channel as sRGB by its colour profile; what is transparent is put on white."""
    if image.mode == "CMYK":
        remarks.append("CMYK")
    elif image.mode in ("L", "1") and DEEP not in remarks:
        remarks.append("grey")
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    rgb = _in_srgb(image, profile, remarks)
    if alpha is None:
        return rgb
    remarks.append("transparent: put on white")
    rgb.putalpha(alpha)
    return Image.alpha_composite(Image.new("RGBA", rgb.size, "white"), rgb).convert("RGB")


def _in_srgb(image: Image.Image, profile: bytes | None, remarks: list[str]) -> Image.Image:
    if image.mode == "LAB":
        return ImageCms.buildTransform(ImageCms.createProfile("LAB"), _SRGB, "LAB", "RGB").apply(image)
    if profile:
        try:
            mode, transform = _transform(profile)
        except Exception:  # Pillow raises many for a damaged profile
            mode, transform = "", None
            if DAMAGED_METADATA not in remarks:
                remarks.append(DAMAGED_METADATA)
        is_fit = (mode == "CMYK") == (image.mode == "CMYK") and (mode != "L" or image.mode in _GREY)
        if transform is not None and is_fit:
            remarks.append("colours brought to sRGB")
            return transform.apply(image.convert(mode))
    return image if image.mode == "RGB" else image.convert("RGB")


@lru_cache(maxsize=8)  # it takes longer than reading a small photo, and most photos of a camera have the same
def _transform(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """Return the mode of the pixels that a profile is for, and what brings them to sRGB; `None` where they are."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    mode = _MODES[source.profile.xcolor_space.strip()]
    transform = ImageCms.buildTransform(source, _SRGB, mode, "RGB")
    return mode, None if mode == "RGB" and _changes_nothing(transform) else transform


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    """Whether a transform from RGB leaves a cube of 6 x 6 x 6 colours as it is, as sRGB under any name does."""
    levels = np.linspace(0, 255, 6, dtype=np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(12, 18, 3)
    changed = np.asarray(transform.apply(Image.fromarray(cube)), dtype=int)
    return bool(np.abs(changed - cube).max() <= _SAME)


def _scaled(values: npt.NDArray[Any], tags: Mapping[int, Any], remarks: list[str]) -> Grey:
    is_float = np.issubdtype(values.dtype, np.floating)
    deep = values.astype(np.float64)
    if not np.isfinite(deep).all():
        raise UnreadablePhotoError("its values are no numbers")
    full, is_stated = _full_scale(float(deep.max()), tags, is_float=is_float)
    if full != (1.0 if is_float else _FULL_16_BITS):
        said = "as the file says" if is_stated else "by the largest of them"
        remarks.append(f"values taken as 0 to {full:g}, {said}")
    return np.round(np.clip(deep / full, 0, 1) * 255).astype(np.uint8)


def _full_scale(largest: float, tags: Mapping[int, Any], *, is_float: bool) -> tuple[float, bool]:
    """Return the value that is white, and whether the tags of the file, a TIFF, say so.

    The tags may give the largest value in this photo instead of the largest possible, so it is rounded up to a whole
    number of bits. Without a tag 16 bits are used in full, unless a TIFF has no value with more than 12: with 16 it
    would be black. Floats have one of a few ranges. The largest may be exceeded a little, as sharpening does.
    """
    stated = _stated(tags)
    if stated is not None:
        top = max(largest, stated)
        return (1.0 if is_float and top <= 1 else _whole_bits(top)), True
    if is_float:
        return next((full for full in _FLOAT_RANGES if largest < 2 * full), _whole_bits(largest)), False
    return (4095.0 if tags and largest <= 4095 else _whole_bits(max(largest, _FULL_16_BITS))), False


def _stated(tags: Mapping[int, Any]) -> float | None:
    """The largest value by the tags of a TIFF; `None` where they say nothing of it."""
    for tag in (_FLOAT_MAX_VALUE, _MAX_VALUE):
        try:
            stated = float(np.max(tags[tag]))
        except (KeyError, TypeError, ValueError):
            continue
        if math.isfinite(stated) and stated > 0:
            return stated
    bits = int(np.max(tags.get(_BITS, 16)))
    return float(2**bits - 1) if bits < 16 else None


def _whole_bits(largest: float) -> float:
    """The largest value of as many bits as `largest` needs: 8, 10, 12 and so on, as sensors have."""
    bits = max(8, math.ceil(largest).bit_length())
    return float(2 ** (bits + bits % 2) - 1)
