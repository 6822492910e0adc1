"""What keeping the state to resume from costs, as a table for docs/training.md."""

from __future__ import annotations

from collections.abc import Mapping

from aerofuse.common.markdown import markdown_table
from aerofuse.comparison.times import TrainingTimes


def saving_table(times: Mapping[str, TrainingTimes]) -> str:
    """Return the seconds of every training stage, those of its saves, and their share."""
    whole = {**times, "all": TrainingTimes.total(list(times.values()))}
    rows = [
        [
            stage,
            f"{spent.seconds:.1f}",
            f"{spent.seconds_saving_state:.2f}",
            f"{spent.seconds_saving_state / spent.seconds:.1%}",
        ]
        for stage, spent in whole.items()
    ]
    device, busy = whole["all"].device, whole["all"].busy_elsewhere
    table = markdown_table(["stage", "seconds of training", "seconds of saving", "share"], rows, "lrrr")
    note = f"On {device}; other programs took up to {busy:.0%} of the processors' time. From `reports/times/`."
    return f"{table}\n\n{note}"
