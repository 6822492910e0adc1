"""How a model learned, epoch by epoch and across its phases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from aerofuse.plotting.style import BLUE, GREEN, GREY, INK, ORANGE, PALE, VERMILLION, new_figure, save_figure, styled
from aerofuse.plotting.wording import METRICS

_SHARES = {"score": INK, "type_top1": BLUE, "airline_top1": ORANGE}
_ERRORS = {"clarity_mae": GREEN, "block_mae": VERMILLION}


@styled
def draw_learning_curves(histories: Mapping[str, pd.DataFrame], model: str, path: Path) -> None:
    """Write the training loss and the validation metrics over all epochs of all phases.

    `histories` holds, per phase and in their order, a table with the column `epoch` (counted from 1 in each
    phase), and of `train_loss`, `score`, `type_top1`, `airline_top1`, `clarity_mae`, `block_mae` those that
    there are. The best epoch of each phase, from which the next one starts, is marked.
    Raises `ValueError` where there is no epoch at all.
    """
    history = join_phases(histories)
    figure = new_figure(9.6, 6.6)
    figure.suptitle(f"{model}: learning curves (dotted: best epoch)", x=0.01, ha="left")
    has_errors = any(name in history for name in _ERRORS)
    panels = figure.subplots(3 if has_errors else 2, 1, sharex=True, squeeze=False)[:, 0]
    _draw_lines(panels[0], history, {"train_loss": BLUE}, "training loss")
    _draw_lines(panels[1], history, _SHARES, "validation, 0 to 1")
    if has_errors:
        _draw_lines(panels[2], history, _ERRORS, "validation MAE")
    _mark_phases(panels, history)
    panels[-1].set_xlabel("epoch, counted over all phases" if len(histories) > 1 else "epoch")
    panels[-1].xaxis.get_major_locator().set_params(integer=True)
    save_figure(figure, path)


def join_phases(histories: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """All phases in one table: `at` counts the epochs on, `phase` names the phase, `best` marks its best epoch.

    Raises `ValueError` where there is no epoch at all.
    """
    parts = []
    done = 0
    for phase, history in histories.items():
        if history.empty:
            continue
        part = history.assign(phase=phase, at=history["epoch"] + done, best=False)
        if "score" in part:
            part.loc[part["score"].idxmax(), "best"] = True
        parts.append(part)
        done += int(history["epoch"].max())
    if not parts:
        raise ValueError(f"no epoch in the histories of {', '.join(histories) or 'no phase at all'}")
    return pd.concat(parts, ignore_index=True)


def _draw_lines(axes: Any, history: pd.DataFrame, colours: Mapping[str, str], label: str) -> None:
    for name, colour in colours.items():
        if name not in history:
            continue
        known = history.dropna(subset=[name])
        word = METRICS[name][0] if name in METRICS else name
        axes.plot(known["at"], known[name], color=colour, linewidth=1.8, marker="o", markersize=3, label=word)
    axes.set_ylabel(label)
    if len(axes.lines) > 1:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def _mark_phases(panels: Any, history: pd.DataFrame) -> None:
    phases = list(history.groupby("phase", sort=False))
    for number, (phase, part) in enumerate(phases):
        start, end = part["at"].min() - 0.5, part["at"].max() + 0.5
        for axes in panels:
            if number % 2:
                axes.axvspan(start, end, color=PALE, alpha=0.6, zorder=0, linewidth=0)
            for at in part.loc[part["best"], "at"]:
                axes.axvline(at, color=GREY, linewidth=1, linestyle=(0, (2, 2)), zorder=1)
        if len(phases) > 1:
            panels[0].annotate(
                str(phase),
                ((start + end) / 2, 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, 4),
                textcoords="offset points",
                ha="center",
                va="bottom",
                color=GREY,
                fontsize=9,
            )
    panels[0].set_xlim(history["at"].min() - 0.5, history["at"].max() + 0.5)
