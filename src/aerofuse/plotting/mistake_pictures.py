"""Photos and the maps over them, as small JPEG files."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from PIL import Image

Pixels = npt.NDArray[np.uint8]

_LARGEST_SIDE_PX = 160
_HEAT = "inferno"
_LARGEST_OPACITY = 0.8
_QUALITIES = (88, 75, 60, 45)


def overlay(image: Pixels, heat: npt.NDArray[np.float32]) -> Pixels:
    """The photo `[H, W, 3]` in grey, coloured where the map `[H, W]`, in 0..1, is high."""
    grey = image.mean(axis=2, keepdims=True).repeat(3, axis=2)
    opacity = (_LARGEST_OPACITY * heat)[..., np.newaxis]
    mixed = (1 - opacity) * grey + opacity * 255 * colormaps[_HEAT](heat)[..., :3]
    return np.asarray(mixed.round().clip(0, 255), dtype=np.uint8)


def write_jpegs(pictures: Mapping[str, Pixels], folder: Path, max_bytes: int) -> None:
    """Write RGB pictures `[H, W, 3]` to files of `folder`, all together of at most `max_bytes`.

    Large ones are made smaller; where they are still too much, all lose quality alike. The same pictures give the same
    bytes. Raises `ValueError` where even that does not do.
    """
    for quality in _QUALITIES:
        encoded = {name: _encode(pixels, quality) for name, pixels in pictures.items()}
        size = sum(map(len, encoded.values()))
        if size <= max_bytes:
            break
    else:
        raise ValueError(f"{len(pictures)} pictures take {size} bytes, {max_bytes} are allowed; show fewer mistakes")
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in encoded.items():
        (folder / name).write_bytes(content)


def _encode(pixels: Pixels, quality: int) -> bytes:
    image = Image.fromarray(pixels)
    image.thumbnail((_LARGEST_SIDE_PX, _LARGEST_SIDE_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality, optimize=True)
    return buffer.getvalue()
