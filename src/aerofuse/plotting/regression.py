"""Predicted against true clarity and block."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from aerofuse.data.labels import REGRESSION_TASKS
from aerofuse.plotting.style import BLUE, GREY, INK, new_figure, save_figure, styled
from aerofuse.plotting.wording import write_value

_ENDS = {
    "clarity": ("0: blurred", "1: sharp"),
    "block": ("0: fully visible", "1: fully hidden"),
}


@styled
def draw_regression(predictions: pd.DataFrame, metrics: Mapping[str, float], model: str, path: Path) -> None:
    """Write a scatter plot for each of clarity and block, with the identity line and the errors.

    `metrics` holds `{task}_mae` and, where there is one, `{task}_mae_constant`, the constant predictor's.
    """
    figure = new_figure(9.6, 5.55)
    figure.suptitle(f"{model}: predicted against true", x=0.01, ha="left")
    for axes, task in zip(figure.subplots(1, 2), REGRESSION_TASKS, strict=True):
        known = predictions.dropna(subset=[task])
        # Clouds stay readable whether there are a hundred points or ten thousand.
        opacity = min(0.8, max(0.08, 250 / max(1, len(known))))
        axes.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=3)
        axes.scatter(known[task], known[f"{task}_predicted"], s=12, color=BLUE, alpha=opacity, linewidth=0)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        low, high = _ENDS[task]
        axes.set_xlabel(f"true {task}   ({low}, {high})")
        axes.set_ylabel(f"predicted {task}")
        axes.set_title(_title(task, len(known), metrics), fontsize=10)
        if known.empty:
            _say_empty(axes, task)
    save_figure(figure, path)


def _title(task: str, images: int, metrics: Mapping[str, float]) -> str:
    parts = [f"MAE {write_value(metrics.get(f'{task}_mae'), '')}"]
    if f"{task}_mae_constant" in metrics:
        parts.append(f"constant predictor's {write_value(metrics[f'{task}_mae_constant'], '')}")
    if f"{task}_plcc" in metrics:
        parts.append(f"PLCC {metrics[f'{task}_plcc']:.3f}")
    return f"{task}, {images} images\n{', '.join(parts)}"


def _say_empty(axes: Any, task: str) -> None:
    axes.text(0.5, 0.3, f"no test image has\na label of {task}", ha="center", color=GREY)
