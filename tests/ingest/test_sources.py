"""From the parameters to the prepared splits: which types are learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aerofuse.common.params import load_section
from aerofuse.data.labels import ClassLists
from aerofuse.ingest.params import DataParams
from aerofuse.ingest.prepare import prepare_photos
from aerofuse.ingest.sources import create_source
from aerofuse.ingest.splits import OTHER
from aerofuse.ingest.summary import DataSummary, summarise
from tests.ingest.photo_folder import PhotoFolder, draw_folder


@pytest.fixture
def folder(tmp_path: Path) -> PhotoFolder:
    """Photos of two types, of which a few are given to two more."""
    folder = draw_folder(tmp_path / "photos", photos=24)
    folder.table["registration"] = [f"R{number}" for number in range(24)]
    folder.table.loc[[0, 1], "typename"] = "Comet"
    folder.table.loc[[2], "typename"] = "Concorde"
    folder.table.loc[[3, 4], "typename"] = "Trident"
    return folder


def _prepare(folder: PhotoFolder, out: Path, **changes: Any) -> DataSummary:
    folder.write()
    changes |= {"source": "table", "root": str(folder.root), "labels": str(folder.labels)}
    params = load_section(DataParams, "data").model_copy(update=changes)
    source = create_source(params, 64, out / "work")
    merges = params.small_types == "merge"
    index = prepare_photos(source, params.split, 64, out / "prepared", merge_small_types=merges)
    return summarise(index, source, out / "prepared")


def test_only_chosen_types_are_learned(folder: PhotoFolder, tmp_path: Path) -> None:
    kept = sorted(set(folder.table["typename"]) - {"Comet", "Concorde", "Trident"})
    summary = _prepare(folder, tmp_path, only_types=kept)
    assert summary.left_out_types == {"Comet": 2, "Concorde": 1, "Trident": 2}
    assert ClassLists.load(tmp_path / "prepared").types == tuple(kept)
    assert sum(split.photos for split in summary.splits.values()) == 19


def test_what_has_too_few_photos_is_left_out_before_small_types_are_merged(folder: PhotoFolder, tmp_path: Path) -> None:
    summary = _prepare(folder, tmp_path, min_photos=2, small_types="merge")
    assert summary.left_out_types == {"Concorde": 1}
    assert summary.merged_types == {"Comet": 2, "Trident": 2}
    assert ClassLists.load(tmp_path / "prepared").types[-1] == OTHER


def test_labels_that_a_crop_could_make_false_are_refused(folder: PhotoFolder, tmp_path: Path) -> None:
    folder.table.loc[1:, ["clarity", "block"]] = None
    folder.table.loc[5, "block"] = 0.5
    message = "2 photos have a label of clarity or block, such as that of row 2; .* letterbox or stretch, or take the"
    with pytest.raises(ValueError, match=message):
        _prepare(folder, tmp_path, fit="crop", small_types="merge")
    assert not (tmp_path / "work").exists(), "no photo was read"
    _prepare(folder, tmp_path, fit="stretch", small_types="merge")
    folder.table[["clarity", "block"]] = None
    _prepare(folder, tmp_path, fit="crop", small_types="merge")


def test_a_type_without_training_photos_may_be_left_out(folder: PhotoFolder, tmp_path: Path) -> None:
    folder.table["split"] = ["train", "validation", "test"] * 8
    kept = sorted(set(folder.table["typename"]) - {"Comet", "Concorde", "Trident"})
    with pytest.raises(ValueError, match=r"no photo of Concorde \(1 in test, such as row 4\)"):
        _prepare(folder, tmp_path)
    assert not (tmp_path / "work").exists(), "no photo was read"
    summary = _prepare(folder, tmp_path, only_types=kept)
    assert {name: split.photos for name, split in summary.splits.items()} == {"train": 6, "validation": 6, "test": 7}
