from __future__ import annotations

from aerofuse.comparison.times import TrainingTimes
from tools.saving_table import saving_table


def test_every_stage_and_all_of_them() -> None:
    times = {
        "train_stage_a": TrainingTimes(10.0, 0.0, 1, 1, 90, 9.0, "Some CPU", 0.0, None, 0.1, 0),
        "train_stage_b": TrainingTimes(30.0, 0.0, 1, 1, 90, 3.0, "Some CPU", 0.3, None, 0.5, 1),
    }
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in saving_table(times).splitlines()]
    assert ["train_stage_a", "10.0", "0.10", "1.0%"] in rows
    assert ["all", "40.0", "0.60", "1.5%"] in rows
    assert "other programs took up to 30% of the processors' time" in saving_table(times)
