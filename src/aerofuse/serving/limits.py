"""Limits on what a server accepts: the size of a photo, its pixels, its format, and the photos in a request."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from aerofuse.data.photo import MAX_PIXELS, UnreadablePhotoError

# Cameras and the web use these. Pillow's other decoders, some of which start programs, get no file from a request.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")


@dataclass(frozen=True)
class Limits:
    """The largest photo file, the most pixels of a photo, and the most photos in one request."""

    max_photo_bytes: int = 20 * 2**20
    max_photo_pixels: int = 64_000_000
    max_photos: int = 16

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} is a whole number from 1 up, not {value!r}")
        if self.max_photo_pixels > MAX_PIXELS:
            raise ValueError(f"max_photo_pixels is {self.max_photo_pixels}; no photo of more than {MAX_PIXELS} is read")

    @classmethod
    def from_settings(cls, settings: Mapping[str, int]) -> Limits:
        """Return the limits named in `settings`, with defaults for the others. Raises `ValueError` for other names."""
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise ValueError(f"unknown limit {', '.join(unknown)}; there are {', '.join(known)}")
        return cls(**settings)


def read_content(cell: object, limits: Limits) -> bytes:
    """Return the photo file in a cell of a request, bytes or base64, without decoding its pixels.

    Raises `UnreadablePhotoError` where it is not a photo, too large, of another format, or has too many pixels.
    """
    content = _content(cell, limits)
    try:
        # Pillow warns of large images; their size is checked here.
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content), formats=FORMATS) as file:
            width, height = file.size
    except UnidentifiedImageError:
        raise UnreadablePhotoError(f"not an image that is taken here: {', '.join(FORMATS)}") from None
    except Image.DecompressionBombError:
        raise UnreadablePhotoError(f"{_too_many(limits)}: a decompression bomb?") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UnreadablePhotoError(f"damaged or truncated ({error})") from None
    if width * height > limits.max_photo_pixels:
        raise UnreadablePhotoError(f"{width} x {height}, {_too_many(limits)}: a decompression bomb?")
    return content


def _content(cell: object, limits: Limits) -> bytes:
    if isinstance(cell, str):
        if len(cell) > 2 * limits.max_photo_bytes:  # base64 takes 4 characters for 3 bytes, and some line breaks
            raise UnreadablePhotoError(_too_large(limits))
        try:
            content = base64.b64decode("".join(cell.split()), validate=True)
        except (binascii.Error, ValueError):
            raise UnreadablePhotoError("not base64") from None
    elif isinstance(cell, bytes | bytearray):
        content = bytes(cell)
    else:
        raise UnreadablePhotoError("no photo: it is sent as base64, or in Python as bytes")
    if not content:
        raise UnreadablePhotoError("the file is empty")
    if len(content) > limits.max_photo_bytes:
        raise UnreadablePhotoError(_too_large(limits))
    return content


def _too_large(limits: Limits) -> str:
    return f"larger than {limits.max_photo_bytes} bytes"


def _too_many(limits: Limits) -> str:
    return f"more than {limits.max_photo_pixels} pixels"
