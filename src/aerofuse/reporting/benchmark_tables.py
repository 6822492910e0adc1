"""What the benchmark of gradient checkpointing measured, as Markdown."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from aerofuse.reporting.tables import markdown_table

_COMPARED = ("timm's switch", "planned at the switch's peak", "planned at 50 %", "planned, least")
_WAYS = ("recompute_all", "keep_dear", "segments=4", "timm's switch")


def newest_benchmark(folder: Path) -> Path | None:
    """The newest table of the benchmark, by the date in its name; `None` where there is none."""
    return max(folder.glob("checkpointing-*.csv"), key=lambda path: path.stem[-10:], default=None)


def checkpointing_table(path: Path) -> str:
    """Per family: what was promised, and what each way saves and costs."""
    table = pd.read_csv(path)
    header = ["family", "variants", "measured on", "promised", *(f"{way}: saves / time" for way in _WAYS)]
    rows = []
    for family, ways in table.groupby("family", sort=False):
        by_way = ways.set_index("way")
        first = ways.iloc[0]
        measured = [f"{1 - by_way.peak_ratio[way]:.0%} / {by_way.time_ratio[way]:.2f}" for way in _WAYS]
        rows.append([str(family), str(first.variants), f"`{first.variant}`", first.promised, *measured])
    return f"{markdown_table(header, rows, 'lrl' + 'r' * (len(header) - 3))}\n\nFrom `{path.as_posix()}`."


def exactness_table(path: Path) -> str:
    """Per family with buffers: how many differ after one step under timm's switch, and under each of our ways."""
    table = pd.read_csv(path)
    header = ["measured on", "buffers", *(f"differ, {way}" for way in _WAYS[::-1])]
    rows = []
    for _, ways in table.groupby("family", sort=False):
        differ = ways.set_index("way").buffers_that_differ
        first = ways.iloc[0]
        if first.buffers:
            rows.append([f"`{first.variant}`", str(first.buffers), *(str(differ[way]) for way in _WAYS[::-1])])
    return markdown_table(header, rows, "l" + "r" * (len(header) - 1))


def planned_table(path: Path) -> str:
    """Per family: what plans take at given peaks, beside timm's switch, and how right the planner was.

    Times are those of a step over the same without checkpointing, in brackets as predicted.
    """
    table = pd.read_csv(path)
    header = [
        "measured on",
        "switch: memory / time",
        "planned at its peak",
        "of the switch's extra time",
        "planned at 50 %",
        "least: memory / time",
        "of the switch's memory",
        "peaks, solved against counted",
    ]
    rows = []
    for _, ways in table.groupby("family", sort=False):
        switch, same, half, least = (ways[ways.way == name].iloc[0] for name in _COMPARED)
        planned = ways[ways.solved_peak_bytes.notna()]
        off = (planned.solved_peak_bytes / planned.peak_bytes - 1).abs().max()
        rows.append(
            [
                f"`{switch.variant}`",
                f"{switch.peak_ratio:.2f} / {switch.time_ratio:.2f}",
                _time(same),
                f"{(same.time_ratio - 1) / (switch.time_ratio - 1):.0%}",
                _time(half),
                f"{least.peak_ratio:.2f} / {_time(least)}",
                f"{least.peak_ratio / switch.peak_ratio:.2f}",
                f"within {off:.1%}",
            ]
        )
    return f"{markdown_table(header, rows, 'l' + 'r' * (len(header) - 1))}\n\nFrom `{path.as_posix()}`."


def _time(row: pd.Series) -> str:
    return f"{row.time_ratio:.2f} ({row.predicted_time_ratio:.2f})"
