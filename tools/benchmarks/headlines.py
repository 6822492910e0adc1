"""The few numbers of one network that a person compares from run to run."""

from __future__ import annotations

import pandas as pd

from tools.benchmarks.rows import (
    AT_HALF,
    AT_SEGMENTS,
    AT_SWITCH,
    LEAST,
    SEGMENTS,
    SWITCH,
    by_variant,
    largest_peak_error,
    largest_time_error,
)

_SHORT = {
    SWITCH: "switch",
    SEGMENTS: "segments",
    AT_SWITCH: "planned_at_switch",
    AT_SEGMENTS: "planned_at_segments",
    AT_HALF: "planned_at_half",
    LEAST: "planned_least",
}


def headlines(table: pd.DataFrame) -> dict[str, float]:
    """Memory and time of each way over those without checkpointing, and how wrong the planner was at most.

    `table` holds the rows of one network; the times are those of the first precision whose steps were timed.
    """
    found: dict[str, float | None] = {}
    for ways in by_variant(table).values():
        for way, name in _SHORT.items():
            if way in ways:
                found[f"{name}_memory"] = float(ways[way]["peak_ratio"])
                found[f"{name}_time"] = float(ways[way]["time_ratio"])
        found["time_error"] = largest_time_error(ways)
    for precision in dict.fromkeys(table["precision"]):
        for ways in by_variant(table, precision).values():
            found[f"peak_error_{precision}"] = largest_peak_error(ways)
    return {name: value for name, value in found.items() if value is not None}
