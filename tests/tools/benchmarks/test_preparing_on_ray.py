from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.imports import ROOT
from tools.benchmarks.preparing_on_ray import measure, speedup


def test_the_speedup_is_that_of_the_middle_round() -> None:
    rates = {(1, 1): 10, (1, 2): 19, (2, 1): 10, (2, 2): 17, (3, 1): 20, (3, 2): 20}
    rows = [
        {"engine": "ray", "round": number, "nodes": nodes, "photos_per_second": rate}
        for (number, nodes), rate in rates.items()
    ]
    local = {"engine": "local", "round": 1, "nodes": 1, "photos_per_second": 99}
    assert speedup(pd.DataFrame([local, *rows])) == pytest.approx(1.7)


@pytest.mark.slow
def test_both_clusters_write_the_bytes_of_one_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    table = measure(tmp_path, 600, 200, 48, 1)
    assert table["engine"].tolist() == ["local", "ray", "ray"]
    assert table["nodes"].tolist() == [1, 1, 2]
    assert table["same_bytes"].all()
    assert (table["photos_per_second"] > 0).all()
