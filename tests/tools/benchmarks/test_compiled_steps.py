"""The benchmark of compiled steps: its table, and one way of one network on a CPU."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from tools.benchmarks.compiled import KNOB, PLAN, RECOMPUTE_ALL, TIMM, WITHOUT, CompiledWay, compiled_table, measure


def test_ways_stand_at_the_peak_of_the_switch(tmp_path: Path) -> None:
    found = [
        (WITHOUT, None, 400, 1.0),
        (TIMM, None, 200, 1.3),
        (KNOB, 0.5, 300, 1.1),
        (KNOB, 0.2, 250, 1.2),
        (PLAN, 0.5, 190, 1.15),
        (PLAN, 0.2, 100, 1.4),
        (RECOMPUTE_ALL, None, 120, 1.35),
    ]
    rows = [
        {"network": "one", "way": way, "budget": budget, "peak_bytes": mebibytes * 2**20, "time_ratio": time}
        for way, budget, mebibytes, time in found
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "compiled.csv", index=False)
    cells = [cell.strip() for cell in compiled_table(tmp_path / "compiled.csv").splitlines()[-1].strip("|").split("|")]
    assert cells == ["`one`", "400 MiB / 1.00", "200 MiB / 1.30", "250 MiB / 1.20", "190 MiB / 1.15", "120 MiB / 1.35"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler")
def test_a_plan_takes_less_memory_than_none() -> None:
    ways = [CompiledWay(WITHOUT), CompiledWay(RECOMPUTE_ALL), CompiledWay(PLAN, 0.01)]
    rows = {row.way: row for row in measure("test_convnext", 2, 64, 1, ways)}
    assert rows.keys() == {WITHOUT, RECOMPUTE_ALL}  # such a budget is refused
    assert rows[RECOMPUTE_ALL].peak_bytes < rows[WITHOUT].peak_bytes
