"""Names of models, stages and metrics, and values written with their units."""

from __future__ import annotations

import math
from collections.abc import Sequence

MODELS = {"single_task": "single-task", "multi_task": "multi-task", "hybrid": "hybrid"}

STAGES = {
    "train_single_task": "single-task",
    "train_multi_task": "multi-task",
    "train_stage_a": "hybrid, phase A",
    "train_stage_b": "hybrid, phase B",
    "train_stage_c": "hybrid, phase C",
}

# metric: (name, unit); `%` and `points` are shares in 0..1 times 100, no unit is a plain number in 0..1
METRICS = {
    "type_top1": ("type top-1", "%"),
    "type_top5": ("type top-5", "%"),
    "type_macro_f1": ("type macro-F1", "%"),
    "sharp_type_top1": ("type top-1, clarity > 0.9", "%"),
    "type_ece": ("type ECE", "%"),
    "airline_top1": ("airline top-1", "%"),
    "airline_ece": ("airline ECE", "%"),
    "clarity_mae": ("clarity MAE", ""),
    "clarity_rmse": ("clarity RMSE", ""),
    "clarity_plcc": ("clarity PLCC", ""),
    "clarity_srcc": ("clarity SRCC", ""),
    "block_mae": ("block MAE", ""),
    "block_rmse": ("block RMSE", ""),
    "block_plcc": ("block PLCC", ""),
    "block_srcc": ("block SRCC", ""),
}
MAIN_METRICS = ("type_top1", "airline_top1", "clarity_mae", "block_mae")
NONE = "-"  # where a model has no such value
_BYTES_PER_GB = 1e9


def write_value(value: float | None, unit: str, *, signed: bool = False) -> str:
    """Return a value with its unit, such as `87.33 %`, `+1.20 points`, `0.0512`, `12.3 ms`, `16.2 GB`."""
    if value is None:
        return NONE
    sign = "+" if signed else ""
    if unit in ("%", "points"):
        return f"{100 * value:{sign}.2f} {unit}"
    if unit == "":
        return f"{value:{sign}.4f}"
    shown = value / _BYTES_PER_GB if unit == "GB" else value
    return f"{shown:{sign}.1f} {unit}"


def write_interval(low: float, high: float, unit: str, *, signed: bool = False) -> str:
    """Return an interval such as `[80.51, 83.79]`."""
    written = (write_value(end, unit, signed=signed).split()[0] for end in (low, high))
    return f"[{', '.join(written)}]"


def write_bytes(number: float) -> str:
    """Return an amount of memory in a suitable unit, such as `75.6 MB`, `16.2 GB`."""
    return f"{number / 1e9:.1f} GB" if number >= _BYTES_PER_GB else f"{number / 1e6:.1f} MB"


def write_list(words: Sequence[str]) -> str:
    """Return words as in a sentence: `a`, `a and b`, `a, b and c`."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def write_threshold(value: float, unit: str) -> str:
    """Return a threshold as people say it, such as `80 %`, `1 point`, `0.15`, `100 ms`."""
    shown = {"%": 100 * value, "points": 100 * value, "GB": value / _BYTES_PER_GB}.get(unit, value)
    word = "point" if unit == "points" and math.isclose(shown, 1) else unit
    return f"{shown:g} {word}".strip()


def write_duration(seconds: float) -> str:
    """Return a duration in suitable units, such as `42 s`, `12 min 05 s`, `3 h 20 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def write_p_value(p_value: float) -> str:
    """Return a p-value without digits that mean nothing."""
    return "< 0.0001" if p_value < 0.0001 else f"{p_value:.4f}"
