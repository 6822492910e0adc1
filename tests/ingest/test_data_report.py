from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from aerofuse.ingest.data_report import write_data_report
from aerofuse.ingest.summary import DataSummary, Group, SplitSummary

_SPLIT = SplitSummary(
    photos=40,
    airframes=12,
    types={"A320": 30, "空客 B|7": 10},
    airlines={"Air": 20},
    labelled={"type": 40, "airline": 20, "clarity": 35, "block": 0},
    histograms={"clarity": [0, 5, 5, 5, 5, 5, 5, 5, 0, 0], "block": [0] * 10},
)
_SUMMARY = DataSummary(
    splits={"train": _SPLIT, "validation": _SPLIT, "test": _SPLIT},
    merged_types={"Comet": 2},
    left_out_types={"Trident": 4},
    near_duplicates=3,
    duplicate_examples=[Group(["a.jpg", "b.jpg"], ["train", "train"])],
    divided_duplicates=[Group(["c.jpg", "d.jpg"], ["train", "test"])],
    divided_airframes=[Group(["e.jpg", "f.jpg"], ["validation", "train"])],
    moved=[],
    cut_validation=0,
    contradictions=[],
    shared_airframes=7,
    airframe_examples=[],
    remarks={"CMYK": 4},
    dropped=[("broken.jpg", "the file is empty")],
    unlisted=["extra.png"],
)


def test_everything_that_was_found_is_on_the_page(prepared_folder: Path, tmp_path: Path) -> None:
    write_data_report(_SUMMARY, prepared_folder, tmp_path)
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    for words in (
        "120 photos are used, 1 were left out",
        "| with a label of airline",
        "Comet (2)",
        "3 images occur more than once",
        "Trident (4)",
        "1 images are on two sides of the split that came with the data",
        "c.jpg, d.jpg",
        "1 airframes are on two sides of the split that came with the data",
        "e.jpg, f.jpg",
        "That split was kept; what is measured on these photos is too good.",
        "| broken.jpg | the file is empty |",
        "1 image files are not in the table",
        "| CMYK",
        "](contact_sheet.png)",
    ):
        assert words in page
    assert "No training photo shows" not in page
    assert json.loads((tmp_path / "report.json").read_text())["dropped"] == [["broken.jpg", "the file is empty"]]
    pictures = {"contact_sheet.png", "balance.png", "labels.png"}
    assert {path.name for path in tmp_path.iterdir()} == {"report.md", "report.json"} | pictures
    assert {name for name in re.findall(r"\]\((.*?)\)", page) if name.endswith(".png")} == pictures


def test_photos_that_were_moved_are_named(prepared_folder: Path, tmp_path: Path) -> None:
    summary = dataclasses.replace(_SUMMARY, moved=[("d.jpg", "test", "train")], cut_validation=7)
    write_data_report(summary, prepared_folder, tmp_path)
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "1 photos were moved" in page
    assert "| d.jpg   | test        | train   |" in page
    assert "too good" not in page
    assert "no photos for validation: 7 were cut from its training photos" in page


def test_airlines_that_no_training_photo_shows_are_named(prepared_folder: Path, tmp_path: Path) -> None:
    test = dataclasses.replace(_SPLIT, airlines={"Air": 5, "Rare": 3, "Rarer": 1})
    summary = dataclasses.replace(_SUMMARY, splits={"train": _SPLIT, "validation": _SPLIT, "test": test})
    write_data_report(summary, prepared_folder, tmp_path)
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "**No training photo shows 2 of the airlines**" in page
    assert "Rare (3), Rarer (1)" in page


def test_without_values_there_is_no_picture_of_them(prepared_folder: Path, tmp_path: Path) -> None:
    labelled = {"type": 40, "airline": 0, "clarity": 0, "block": 0}
    empty = dataclasses.replace(
        _SPLIT, labelled=labelled, airlines={}, histograms={"clarity": [0] * 10, "block": [0] * 10}
    )
    summary = dataclasses.replace(_SUMMARY, splits={"train": empty, "validation": empty, "test": empty}, dropped=[])
    write_data_report(summary, prepared_folder, tmp_path)
    assert not (tmp_path / "labels.png").exists()
    assert "Every photo could be read." in (tmp_path / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("count", [1, 100])
def test_few_and_many_classes(count: int, prepared_folder: Path, tmp_path: Path) -> None:
    types = {f"type {number}": 10 + number for number in range(count)}
    split = dataclasses.replace(_SPLIT, types=types)
    splits = dict.fromkeys(("train", "validation", "test"), split)
    write_data_report(dataclasses.replace(_SUMMARY, splits=splits), prepared_folder, tmp_path)
    assert (tmp_path / "balance.png").stat().st_size > 1000
