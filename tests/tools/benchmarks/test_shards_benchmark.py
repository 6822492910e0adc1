from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.imports import ROOT
from tools.benchmarks import shards
from tools.benchmarks.results import SHARDS


@pytest.mark.slow
def test_every_way_is_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "FOLDER", tmp_path)
    monkeypatch.chdir(ROOT)
    shards.main(["--photos", "96", "--image-size", "64", "--shards", "8", "--steps", "1", "--rounds", "1"])
    (path,) = tmp_path.glob("*.csv")
    table = pd.read_csv(path)
    assert path.name.startswith(f"{SHARDS}-")
    assert len(table) == table["way"].nunique() == 6
    assert (table[["loaded_per_second", "trained_per_second", "loaded_share", "trained_share"]] > 0).all(axis=None)
    assert table["loaded_share"][0] == table["trained_share"][0] == 1
    assert set(table["store"]) == {"file"}
