from __future__ import annotations

from pathlib import Path

import pytest

from aerofuse.review.collection import find_table, read_fgvc_collection, read_table_collection
from tests.ingest.fgvc_archive import make_fgvc


def _folder(root: Path, *rows: str, photos: str = "a b c d") -> Path:
    """Files that are listed and never read."""
    root.mkdir(exist_ok=True)
    for name in photos.split():
        (root / f"{name}.jpg").touch()
    (root / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


def test_rows_without_a_type_and_files_without_a_row_are_unlabelled(tmp_path: Path) -> None:
    rows = ("filename,typename,clarity,my_note", "a.jpg,A320,0.50,x", "b.jpg,,0.7,y", "", "c.jpg,A321,,", "gone.jpg,,,")
    root = _folder(tmp_path / "photos", *rows)
    found = read_table_collection(root, root / "labels.csv")
    assert found.columns == ("filename", "typename", "clarity", "my_note")
    assert found.labelled.drop(columns="path").to_numpy().tolist() == [
        ["a.jpg", "A320", "0.50", "x"],
        ["c.jpg", "A321", "", ""],
    ]
    assert found.labelled["path"].tolist() == [root / "a.jpg", root / "c.jpg"]
    assert found.unlabelled.to_numpy().tolist() == [
        [root / "b.jpg", "b.jpg", "", "0.7", "y"],
        [root / "d.jpg", "d.jpg", "", "", ""],
    ]
    assert found.missing == ("gone.jpg",)


def test_a_fault_names_the_users_table_and_row(tmp_path: Path) -> None:
    root = _folder(tmp_path / "photos", "filename,typename,clarity", "a.jpg,,", "b.jpg,A320,1.2")
    with pytest.raises(ValueError, match=r"photos/labels.csv cannot be used:\n  row 3, clarity '1.2'"):
        read_table_collection(root, root / "labels.csv")


def test_a_table_without_any_type_is_refused(tmp_path: Path) -> None:
    root = _folder(tmp_path / "photos", "filename,typename", "a.jpg,", "b.jpg,")
    with pytest.raises(ValueError, match="no row has a type; label some photos first"):
        read_table_collection(root, root / "labels.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"filename;typename\na.jpg;A320\n", "separated by semicolons"),
        (b"filename,typename\na.jpg,\xff\n", "not UTF-8"),
        (b"filename,type\na.jpg,A320\n", "no column 'typename'"),
    ],
)
def test_what_is_no_label_table_is_refused_as_by_prepare(tmp_path: Path, content: bytes, message: str) -> None:
    root = _folder(tmp_path / "photos")
    (root / "labels.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_table_collection(root, root / "labels.csv")


def test_the_table_is_found_in_the_folder(tmp_path: Path) -> None:
    root = _folder(tmp_path / "photos")
    assert find_table(root) == root / "labels.csv"
    (root / "aircraft_labels.csv").touch()
    assert find_table(root) == root / "aircraft_labels.csv"
    with pytest.raises(FileNotFoundError, match="name the label table with --labels"):
        find_table(tmp_path)
    with pytest.raises(FileNotFoundError, match="a file; name the folder"):
        find_table(root / "labels.csv")


def test_fgvc_has_a_type_for_every_photo(tmp_path: Path) -> None:
    root = make_fgvc(tmp_path / "oxford")
    found = read_fgvc_collection(root, "variant", tmp_path / "extracted")
    assert found.columns[:3] == ("filename", "typename", "split")
    assert len(found.labelled) > 0
    assert len(found.unlabelled) == 0
    assert found.labelled["path"].iloc[0].is_file()
