"""A sheet of photos with their labels, to see at a glance what the models are trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aerofuse.data.labels import REGRESSION_TASKS
from aerofuse.data.store import LABEL_COLUMNS, open_table, read_images
from aerofuse.plotting.style import GREY, new_figure, save_figure, styled

_COLUMNS = 6
_PHOTOS = 24
_CAPTION_CHARACTERS = 22


def draw_contact_sheet(split: Path, path: Path) -> None:
    """Write photos of a prepared split, spread evenly over its types. Raises `FileNotFoundError`."""
    table = open_table(split)
    labels = table.select(list(LABEL_COLUMNS)).to_pylist()
    by_type = sorted(range(len(labels)), key=lambda row: (labels[row]["typename"] or "", row))
    shown = min(_PHOTOS, len(by_type))
    rows = [by_type[i * len(by_type) // shown] for i in range(shown)]
    draw_photos(read_images(table, rows), [labels[row] for row in rows], path)


@styled
def draw_photos(images: Sequence[npt.NDArray[np.uint8]], labels: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write RGB photos `[H, W, 3]` as a grid, each with its type above, airline, clarity and block below.

    Raises `ValueError` where there are no photos, or not as many labels.
    """
    if not images or len(images) != len(labels):
        raise ValueError(f"{len(images)} photos with {len(labels)} labels; there must be as many, and at least one")
    columns = min(_COLUMNS, len(images))
    grid_rows = math.ceil(len(images) / columns)
    # A fixed grid: fitted to the captions, the photos would differ in size.
    figure = new_figure(1.7 * columns, 2.3 * grid_rows, fitted=False)
    edge = 0.32 / grid_rows / 2.3
    figure.subplots_adjust(left=0.01, right=0.99, bottom=1.5 * edge, top=1 - edge, wspace=0.06, hspace=0.5)
    panels = figure.subplots(grid_rows, columns, squeeze=False).flat
    for axes in panels:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    for axes, image, label in zip(figure.axes, images, labels, strict=False):
        axes.imshow(image)
        axes.set_title(_shortened(label["typename"]), fontsize=9, loc="center", pad=3)
        axes.set_xlabel(_details(label), fontsize=8, color=GREY, labelpad=3)
    save_figure(figure, path)


def _details(label: Mapping[str, Any]) -> str:
    """The caption under a photo: airline, clarity and block, as far as they are known."""
    values = [f"{task} {label[task]:.2f}" for task in REGRESSION_TASKS if label[task] is not None]
    return "\n".join([_shortened(label["airlinename"] or "airline unknown"), ", ".join(values)])


def _shortened(name: str) -> str:
    return name if len(name) <= _CAPTION_CHARACTERS else name[: _CAPTION_CHARACTERS - 1] + "…"
