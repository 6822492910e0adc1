"""One look for all pictures: fonts, colours that colour-blind readers can tell apart, small and stable files."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib.style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

# Okabe and Ito, "Color universal design" (2008)
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
INK, GREY, PALE = "#222222", "#767676", "#E6E6E6"
MODEL_COLOURS = {"single_task": GREY, "multi_task": ORANGE, "hybrid": BLUE}
STATUS_COLOURS = {"pass": GREEN, "fail": VERMILLION, "not measurable here": GREY}

_STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same picture on every machine
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": PALE,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.dpi": 110,
    "figure.facecolor": "white",
    "figure.titlesize": 13,
}
_MAX_BYTES = 150_000
_COLOURS_TO_TRY = (256, 64)
_LEAST_SIDE_PX = 16

Arguments = ParamSpec("Arguments")


def styled(draw: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Draw in this look, whatever the user's own matplotlib settings are, and leave those as they were."""

    @functools.wraps(draw)
    def draw_in_style(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        with matplotlib.style.context(["default", _STYLE]):
            draw(*args, **kwargs)

    return draw_in_style


def new_figure(width_in: float, height_in: float, *, fitted: bool = True) -> Any:
    """An empty figure, without pyplot and its state; a `fitted` one moves its parts so that none overlap."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained" if fitted else None)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, path: Path, max_bytes: int = _MAX_BYTES) -> None:
    """Write a PNG of at most `max_bytes`; the same figure gives the same bytes.

    What is too large, as a sheet of photos is, loses colours first and then size. Raises `ValueError` where even
    a picture of a few pixels would be too large.
    """
    figure.canvas.draw()
    image = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
    path.parent.mkdir(parents=True, exist_ok=True)
    while min(image.size) >= _LEAST_SIDE_PX:
        for candidate in (image, *(image.quantize(colours, dither=Image.Dither.NONE) for colours in _COLOURS_TO_TRY)):
            candidate.save(path, format="PNG", optimize=True)
            size = path.stat().st_size
            if size <= max_bytes:
                return
        scale = min(0.9, (max_bytes / size) ** 0.5)
        image = image.resize((int(scale * image.width), int(scale * image.height)), Image.Resampling.LANCZOS)
    path.unlink()
    raise ValueError(f"{path} cannot be a PNG of {max_bytes} bytes; allow more")
