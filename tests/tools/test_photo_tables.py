from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.imports import ROOT
from tests.report.test_tables import cells
from tools.benchmarks.results import FOLDER, LOADING, PREPARING, Machine
from tools.photo_tables import loading_table, preparing_table
from tools.readme import photo_blocks, replace_blocks

_MACHINE = Machine("Imagined CPU, 2 threads", "2.13.0", "2026-11-22")


def _loading(path: Path, speed: float) -> None:
    common = {"image_size_px": 224, "file_size_px": 1024, "workers": 2, "cores": 2, "photos": 512}
    rows = [{"way": "slow", "images_per_second": 100.4}, {"way": "fast", "images_per_second": speed}]
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame([row | common for row in rows]).to_csv(path, index=False)


def _preparing(path: Path) -> None:
    common = {"photos_read_again": 0, "most_processes": 4, "photos": 90, "image_size_px": 224, "cores": 2}
    peaks = {"peak_bytes": 1_234_000_000, "peak_bytes_of_parent": 900_000_000}
    rows = [
        {"run": "killed half way", "seconds": 61.0, "photos_read": 48, "photos_read_per_second": 0.8},
        {"run": "after one label was changed", "seconds": 7.0, "photos_read": 0, "photos_read_per_second": 0.0},
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame([row | common | peaks for row in rows]).to_csv(path, index=False)


def test_the_fastest_way_is_the_first(tmp_path: Path) -> None:
    _loading(tmp_path / "a.csv", 1838.5)
    table = loading_table(tmp_path / "a.csv")
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:4]] == ["fast", "slow"]
    assert cells(table, "slow") == ["slow", "100"]
    assert "512 drawn photos in files of 1024 px, at 224 px, 2 worker processes on 2 cores." in table


def test_every_run_has_its_memory(tmp_path: Path) -> None:
    _preparing(tmp_path / "a.csv")
    table = preparing_table(tmp_path / "a.csv")
    assert cells(table, "killed half way")[1:] == ["1 min 01 s", "48", "0", "1", "1.23 GB", "0.90 GB"]
    assert cells(table, "after one label was changed")[1:5] == ["7 s", "0", "0", "-"]


def test_the_page_shows_the_newest_of_each_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert photo_blocks() == {}
    _loading(FOLDER / f"{Machine(_MACHINE.device, _MACHINE.torch, '2026-11-01').name(LOADING)}.csv", 1)
    _loading(FOLDER / f"{_MACHINE.name(LOADING)}.csv", 777)
    _preparing(FOLDER / f"{_MACHINE.name(PREPARING)}.csv")
    text = replace_blocks((ROOT / "docs/data.md").read_text(encoding="utf-8"), photo_blocks())
    assert cells(text, "fast") == ["fast", "777"]
    assert f"From `reports/benchmarks/{_MACHINE.name(PREPARING)}.csv`." in text
    assert "2026-11-01" not in text
