"""Limits on what a server accepts: the size of a photo, its pixels, its format, and the photos in a request."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import io
from collections.abc import Mapping
from dataclasses import dataclass

from aerofuse.data.image_file import MAX_PIXELS, UnreadablePhotoError, read_image

# Cameras and the web use these. Pillow's other decoders get no file from a request.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "HEIF", "BMP", "GIF", "TIFF")


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
    read_image(io.BytesIO(content), lambda file, _: file.size, FORMATS, limits.max_photo_pixels)
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
