"""Images with what belongs to them: a sheet of photos with labels, and maps of attention over photos."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from aerofuse.data.labels import REGRESSION_TASKS
from aerofuse.data.store import PhotoStore
from aerofuse.plotting.chart import QUIET, data_uri, finish, write_picture

Pixels = npt.NDArray[np.uint8]

_CAPTION_CHARACTERS = 22
_CELL_PX, _CAPTION_PX = 128, 56
_LARGEST_SIDE_PX = 160


def draw_contact_sheet(split: Path, path: Path) -> None:
    """Write photos of a prepared split, spread evenly over its types. Raises `FileNotFoundError`."""
    photos = PhotoStore(split)
    labels = photos.labels.to_pylist()
    by_type = sorted(range(len(labels)), key=lambda row: (labels[row]["typename"] or "", row))
    shown = min(24, len(by_type))
    indices = [by_type[i * len(by_type) // shown] for i in range(shown)]
    draw_photos([photos.image(row) for row in indices], [labels[row] for row in indices], path)


def draw_photos(images: Sequence[Pixels], labels: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write RGB images `[H, W, 3]` as a grid, each with its type above, airline, clarity and block below.

    `labels` holds the columns of a prepared split; what is None is not written. Raises `ValueError` where there are no
    images, or not as many labels.
    """
    if not images or len(images) != len(labels):
        raise ValueError(f"{len(images)} photos with {len(labels)} labels; there must be as many, and at least one")
    columns = min(6, len(images))
    grid_rows = math.ceil(len(images) / columns)
    cell_height = _CELL_PX + _CAPTION_PX
    table = pd.DataFrame(
        {
            "uri": data_uri("png", _thumbnail(image)),
            "x": (number % columns + 0.5) * (_CELL_PX + 8),
            "y": number // columns * cell_height + _CELL_PX / 2,
            "type": _shortened(label["typename"]),
            "airline": _shortened(label["airlinename"] or "airline unknown"),
            "values": ", ".join(f"{task} {label[task]:.2f}" for task in REGRESSION_TASKS if label[task] is not None),
        }
        for number, (image, label) in enumerate(zip(images, labels, strict=True))
    )
    width = columns * (_CELL_PX + 8)
    base = alt.Chart(table).encode(
        x=alt.X("x:Q", axis=None, scale=alt.Scale(domain=[0, width], nice=False)),
        y=alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[grid_rows * cell_height, 0], nice=False)),
    )
    layers: list[alt.Chart] = [
        base.mark_image(width=_CELL_PX, height=_CELL_PX).encode(url="uri:N"),
        base.mark_text(dy=-_CELL_PX / 2 - 10, fontSize=11).encode(text="type:N"),
        base.mark_text(dy=_CELL_PX / 2 + 9, fontSize=10, style=QUIET).encode(text="airline:N"),
        base.mark_text(dy=_CELL_PX / 2 + 21, fontSize=10, style=QUIET).encode(text="values:N"),
    ]
    sheet = finish("photos", "", "Photos with their labels.", alt.layer(*layers), height=grid_rows * cell_height)
    write_picture(path, [[sheet]], width_px=width, scale=1)  # of photos a larger one would not fit the file


def _shortened(name: str) -> str:
    return name if len(name) <= _CAPTION_CHARACTERS else name[: _CAPTION_CHARACTERS - 1] + "…"


def _thumbnail(image: Pixels) -> bytes:
    fitted = Image.fromarray(image)
    fitted.thumbnail((2 * _CELL_PX, 2 * _CELL_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    fitted.save(buffer, format="PNG")
    return buffer.getvalue()


def overlay(image: Pixels, heat: npt.NDArray[np.float32]) -> Pixels:
    """Return the image `[H, W, 3]` in grey, coloured where the map `[H, W]`, in 0..1, is high."""
    grey = image.mean(axis=2, keepdims=True).repeat(3, axis=2)
    opacity = (0.8 * heat)[..., np.newaxis]
    levels = np.asarray((255 * heat).round().clip(0, 255), dtype=np.uint8)
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1]
    mixed = (1 - opacity) * grey + opacity * colours
    return np.asarray(mixed.round().clip(0, 255), dtype=np.uint8)


def write_jpegs(images: Mapping[str, Pixels], folder: Path, max_bytes: int) -> None:
    """Write RGB images `[H, W, 3]` to files of `folder`, all together of at most `max_bytes`.

    Large images are made smaller; where they are still too much, all lose quality alike. The same images give the same
    bytes. Raises `ValueError` where even that does not do.
    """
    for quality in (88, 75, 60, 45):
        encoded = {name: _encode(pixels, quality) for name, pixels in images.items()}
        size = sum(map(len, encoded.values()))
        if size <= max_bytes:
            break
    else:
        raise ValueError(f"{len(images)} images take {size} bytes, {max_bytes} are allowed; show fewer mistakes")
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in encoded.items():
        (folder / name).write_bytes(content)


def _encode(pixels: Pixels, quality: int) -> bytes:
    image = Image.fromarray(pixels)
    image.thumbnail((_LARGEST_SIDE_PX, _LARGEST_SIDE_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality, optimize=True)
    return buffer.getvalue()
