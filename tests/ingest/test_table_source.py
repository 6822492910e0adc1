"""Tables with a split, a table for each split, and a folder for each."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from aerofuse.ingest.table_source import list_table

HEADER = "filename,typename"


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _photos(folder: str, *names: str) -> Path:
    """Files that are listed and never read."""
    for name in names:
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return Path(folder)


def _table(name: str, *rows: str, header: str = HEADER) -> Path:
    path = Path(name)
    path.write_text("\n".join((header, *rows)) + "\n")
    return path


def test_a_column_says_the_split_in_any_case() -> None:
    rows = ["a.jpg,A320,Train", "b.jpg,A320, VAL ", "c.jpg,A320,valid", "d.jpg,A320,validation", "e.jpg,A320,TEST"]
    listing = list_table(_photos("photos", "a.jpg"), _table("t.csv", *rows, header=f"{HEADER},split"))
    assert listing.table["split"].tolist() == ["train", "validation", "validation", "validation", "test"]
    assert listing.places.tolist() == [f"row {number}" for number in range(2, 7)]


def test_without_the_column_there_is_no_split() -> None:
    listing = list_table(_photos("photos", "a.jpg"), _table("t.csv", "a.jpg,A320"))
    assert "split" not in listing.table


def test_one_table_for_each_split() -> None:
    root = _photos("photos", "a.jpg", "b.jpg", "extra.jpg")
    labels = {"train": _table("train.csv", "a.jpg,A320", "c.jpg,B747"), "test": _table("test.csv", "b.jpg,A320")}
    listing = list_table(root, labels)
    assert listing.table["split"].tolist() == ["train", "train", "test"]
    assert listing.table["filename"].tolist() == ["a.jpg", "c.jpg", "b.jpg"]
    assert listing.places.tolist() == ["row 2 of train.csv", "row 3 of train.csv", "row 2 of test.csv"]
    assert listing.types == ("A320", "B747")
    assert listing.unlisted == ("extra.jpg",)


def test_a_folder_for_each_split_may_have_photos_of_one_name() -> None:
    roots = {split: _photos(f"in-{split}", "a.jpg", f"{split}.jpg") for split in ("train", "test")}
    labels = {split: _table(f"{split}.csv", "a.jpg,A320") for split in roots}
    listing = list_table(roots, labels)
    assert listing.table["filename"].tolist() == ["train/a.jpg", "test/a.jpg"]
    assert listing.table["path"].tolist() == [Path("in-train/a.jpg"), Path("in-test/a.jpg")]
    assert listing.unlisted == ("test/test.jpg", "train/train.jpg")
    whole = _table("all.csv", "a.jpg,A320,test", "train.jpg,A320,train", header=f"{HEADER},split")
    table = list_table(roots, whole).table
    assert table["path"].tolist() == [Path("in-test/a.jpg"), Path("in-train/train.jpg")]


def _two(train: str, test: str, header: str = HEADER) -> dict[str, Path]:
    return {"train": _table("train.csv", train, header=header), "test": _table("test.csv", test, header=header)}


def test_a_photo_in_two_tables_is_refused() -> None:
    with pytest.raises(ValueError, match=r"keep one row of each:\n  row 2 of train\.csv, row 2 of test\.csv: .*a\.jpg"):
        list_table(_photos("photos", "a.jpg"), _two("a.jpg,A320", "a.jpg,A320"))


def test_one_folder_named_for_two_splits_is_no_way_around() -> None:
    root = _photos("photos", "a.jpg")
    with pytest.raises(ValueError, match=r"row 2 of train\.csv, row 2 of test\.csv"):
        list_table({"train": root, "test": root}, _two("a.jpg,A320", "a.jpg,A320"))


def test_faults_across_tables_name_both() -> None:
    root = _photos("photos", "a.jpg", "b.jpg")
    with pytest.raises(ValueError, match=r"'A320' \(row 2 of train\.csv\), 'a320' \(row 2 of test\.csv\) look alike"):
        list_table(root, _two("a.jpg,A320", "b.jpg,a320"))
    with pytest.raises(ValueError, match=r"has typeid 0 \(row 2 of train\.csv\), 1 \(row 2 of test\.csv\)"):
        list_table(root, _two("a.jpg,A320,0", "b.jpg,A320,1", header=f"{HEADER},typeid"))


def test_a_column_that_contradicts_its_table_is_refused() -> None:
    message = "test.csv cannot be used:\n  row 2, split 'train': data.labels gives the table for test; correct the cell"
    with pytest.raises(ValueError, match=re.escape(message)):
        list_table(_photos("photos", "a.jpg"), _two("a.jpg,A320,train", "b.jpg,A320,train", header=f"{HEADER},split"))
    _two("a.jpg,A320,train", "b.jpg,A320,test", header=f"{HEADER},split")
    assert len(list_table(Path("photos"), {name: Path(f"{name}.csv") for name in ("train", "test")}).table) == 2


def test_folders_without_splits_are_refused() -> None:
    roots = {split: _photos(split, "a.jpg") for split in ("train", "test")}
    with pytest.raises(ValueError, match=r"data\.root has a folder for each split, and the table does not say"):
        list_table(roots, _table("t.csv", "a.jpg,A320"))
    table = _table("t.csv", "a.jpg,A320,train", "a2.jpg,A320,val", header=f"{HEADER},split")
    with pytest.raises(ValueError, match=r"no folder for validation, which 1 photos are in, such as that of row 3;"):
        list_table(roots, table)


def test_an_empty_folder_is_refused() -> None:
    roots = {split: _photos(split, "a.jpg") for split in ("train", "test")}
    shutil.rmtree("test")
    labels = _two("a.jpg,A320", "a.jpg,A320")
    with pytest.raises(FileNotFoundError, match=r"data\.root\.test is 'test': no such folder; name"):
        list_table(roots, labels)
    Path("test/empty").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"data\.root\.test is 'test': an empty folder; name"):
        list_table(roots, labels)


def test_a_table_that_is_missing_or_empty_is_named() -> None:
    root = _photos("photos", "a.jpg")
    labels = _two("a.jpg,A320", "b.jpg,A320")
    labels["test"].write_text(f"{HEADER}\n")
    with pytest.raises(ValueError, match=r"test\.csv has a header and no photos"):
        list_table(root, labels)
    labels["test"].unlink()
    with pytest.raises(FileNotFoundError, match=r"no label table test\.csv"):
        list_table(root, labels)
