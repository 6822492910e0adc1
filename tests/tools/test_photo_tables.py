from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.imports import ROOT
from tests.report.test_tables import cells
from tools.benchmarks.results import COPIES, FOLDER, LOADING, PREPARING, SHARDS, Machine
from tools.photo_tables import copies_table, loading_table, nodes_table, preparing_table, shards_table
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


def _copies(path: Path) -> None:
    common = {"kind": "even", "most_bits": 32, "groups": 90, "copies": 5, "copies_found": 5, "cores": 2}
    compared = {"seconds_all_pairs": 81.0, "same_pairs": True}
    rows = [
        {"fingerprints": 100_000, "seconds": 1.5, "peak_bytes": 234_000_000} | compared,
        {"fingerprints": 200_000, "seconds": 1.5, "peak_bytes": 234_000_000} | compared | {"same_pairs": False},
        {"fingerprints": 1_000_000, "seconds": 29.96, "peak_bytes": 1_234_000_000},
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame([row | common for row in rows]).to_csv(path, index=False)


def test_a_search_stands_beside_comparing_all_where_that_was_done(tmp_path: Path) -> None:
    _copies(tmp_path / "a.csv")
    table = copies_table(tmp_path / "a.csv")
    assert cells(table, "100,000")[1:] == ["even", "32", "81.0 s", "1.5 s", "54", "yes", "0.23 GB"]
    assert cells(table, "200,000")[6] == "**no**"
    assert cells(table, "1,000,000")[3:] == ["-", "30.0 s", "-", "-", "1.23 GB"]


def test_clusters_stand_beside_one_machine(tmp_path: Path) -> None:
    common = {"photos": 4000, "photo_width_px": 2400, "image_size_px": 224, "cores": 2}
    rounds = [("local", 1, 90.0, True), ("ray", 1, 50.0, True), ("ray", 2, 70.0, True), ("ray", 2, 90.0, False)]
    names = ("engine", "nodes", "photos_per_second", "same_bytes")
    pd.DataFrame([dict(zip(names, one, strict=True)) | common for one in rounds]).to_csv(
        tmp_path / "a.csv", index=False
    )
    table = nodes_table(tmp_path / "a.csv")
    assert cells(table, "none")[1:] == ["2", "90", "-", "yes"]
    assert cells(table, "1 of Ray")[1:] == ["1", "50", "1.00", "yes"]
    assert cells(table, "2 of Ray")[1:] == ["2", "80", "1.60", "**no**"]


def _shards(path: Path) -> None:
    common = {"photos": 96, "image_size_px": 224, "shards": 8, "workers": 2, "cores": 2, "store": "s3"}
    rows = [
        {"way": "one file", "loaded_per_second": 700.4, "trained_per_second": 61.24, "loaded_share": 1.0},
        {"way": "shards here", "loaded_per_second": 690.0, "trained_per_second": 60.0, "loaded_share": 0.987},
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame([row | common | {"trained_share": 0.991} for row in rows]).to_csv(path, index=False)


def test_shards_stand_beside_one_file(tmp_path: Path) -> None:
    _shards(tmp_path / "a.csv")
    table = shards_table(tmp_path / "a.csv")
    assert cells(table, "one file")[1:] == ["700", "1.00", "61.2", "0.99"]
    assert cells(table, "shards here")[1:] == ["690", "0.99", "60.0", "0.99"]
    assert "96 drawn photos at 224 px in 8 shards, the store is `s3://`, 2 worker processes on 2 cores." in table


def test_the_page_shows_the_newest_of_each_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert photo_blocks() == {}
    _loading(FOLDER / f"{Machine(_MACHINE.device, _MACHINE.torch, '2026-11-01').name(LOADING)}.csv", 1)
    _loading(FOLDER / f"{_MACHINE.name(LOADING)}.csv", 777)
    _preparing(FOLDER / f"{_MACHINE.name(PREPARING)}.csv")
    _copies(FOLDER / f"{_MACHINE.name(COPIES)}.csv")
    _shards(FOLDER / f"{_MACHINE.name(SHARDS)}.csv")
    text = replace_blocks((ROOT / "docs/data.md").read_text(encoding="utf-8"), photo_blocks())
    assert cells(text, "fast") == ["fast", "777"]
    assert f"From `reports/benchmarks/{_MACHINE.name(PREPARING)}.csv`." in text
    assert cells(text, "1,000,000")[4] == "30.0 s"
    assert cells(text, "shards here")[1] == "690"
    assert "2026-11-01" not in text
