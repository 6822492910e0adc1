"""The command over drawn photos: what it writes can be corrected and used again."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from aerofuse.cli.main import main
from aerofuse.ingest.label_table import read_label_table
from tests.inference.small_packages import write_small_package
from tests.ingest.fgvc_archive import make_fgvc
from tests.ingest.photo_folder import PhotoFolder, draw_folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PhotoFolder:
    """Photos of two types: one with a wrong type, one without a type, two without a row."""
    monkeypatch.chdir(tmp_path)
    write_small_package(tmp_path / "model", "concat")
    folder = draw_folder(tmp_path / "photos", photos=24)
    _, second = folder.table["typename"].unique()
    folder.table.loc[0, "typename"] = second
    folder.table.loc[1, "typename"] = ""
    folder.table = folder.table.iloc[:22]
    folder.write()
    return folder


def _review(*arguments: str) -> int:
    return main(["review", "photos", "--model", "model", *arguments])


def _read(path: str) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def test_three_files_are_written(folder: PhotoFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert _review("--suspects", "5", "--to-label", "2") == 0
    printed = capsys.readouterr()
    assert "21 of 21 labels judged" in printed.out
    assert "3 photos without a type, of which 2 are chosen" in printed.out
    labels, to_label = _read("review/labels.csv"), _read("review/to_label.csv")
    assert labels["filename"].tolist() == folder.table["filename"].drop(1).tolist()
    ranks = sorted(int(rank) for rank in labels["suspect_rank"] if rank)
    assert ranks == list(range(1, len(ranks) + 1))
    assert set(to_label["filename"]) < {"photo-0001.jpg", "photo-0022.jpg", "photo-0023.jpg"}
    assert to_label["typename"].tolist() == ["", ""]
    assert set(to_label["likely_type"]) <= set(folder.table["typename"])


def test_the_page_needs_nothing_else(folder: PhotoFolder) -> None:
    _review("--suspects", "5", "--to-label", "2")
    page = Path("review/review.html").read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    labels = _read("review/labels.csv")
    for _, suspect in labels[labels["suspect_rank"] != ""].iterrows():
        assert suspect["filename"] in page
        assert suspect["likely_type"] in page


def test_the_corrected_table_is_a_label_table_again(folder: PhotoFolder) -> None:
    _review("--suspects", "5")
    corrected = _read("review/labels.csv")
    suspects = corrected.index[corrected["suspect_rank"] != ""]
    assert len(suspects) > 0
    corrected.loc[suspects, "checked"] = "yes"
    corrected.to_csv("corrected.csv", index=False)
    table = read_label_table(Path("corrected.csv")).frame
    assert table["typename"].tolist() == corrected["typename"].tolist()
    assert _review("--suspects", "5", "--labels", "corrected.csv", "--output", "second") == 0
    again = _read("second/labels.csv")
    assert list(again.columns) == list(corrected.columns)
    assert not set(again["filename"][again["suspect_rank"] != ""]) & set(corrected["filename"][suspects])
    assert again["checked"].tolist() == corrected["checked"].tolist()


def test_a_table_of_two_columns_is_enough(folder: PhotoFolder) -> None:
    folder.table = folder.table[["filename", "typename"]].drop(1)
    folder.write()
    assert _review("--suspects", "3") == 0
    assert len(read_label_table(Path("review/labels.csv")).frame) == 21


def test_a_photo_that_cannot_be_read_is_named(folder: PhotoFolder, capsys: pytest.CaptureFixture[str]) -> None:
    (folder.root / "photo-0005.jpg").write_bytes(b"nothing")
    assert _review("--suspects", "1") == 1
    assert "aerofuse: photo-0005.jpg: not an image\n" in capsys.readouterr().err
    assert "photo-0005.jpg: not an image" in Path("review/review.html").read_text(encoding="utf-8")
    assert "photo-0005.jpg" in _read("review/labels.csv")["filename"].tolist()


def test_fgvc_is_reviewed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_small_package(tmp_path / "model", "concat")
    make_fgvc(tmp_path / "oxford")
    assert main(["review", "oxford", "--source", "fgvc", "--model", "model", "--suspects", "3"]) == 0
    assert {"filename", "typename", "split"} < set(_read("review/labels.csv").columns)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labels", "none.csv"], "no label table none.csv; --labels names it"),
        (["--image-size", "64"], "--image-size is for --backbone"),
        (["--output", "photos"], "--output photos is the folder of your photos"),
        (["--output", "photos/labels.csv"], "is a file; name a folder"),
    ],
)
def test_mistakes_in_the_command(
    folder: PhotoFolder, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert _review(*arguments) == 2
    assert message in capsys.readouterr().err


def test_help_says_what_is_written_and_how_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["review", "--help"])
    printed = capsys.readouterr().out
    for word in ("labels.csv", "to_label.csv", "review.html", "examples:", "package-weights"):
        assert word in printed
