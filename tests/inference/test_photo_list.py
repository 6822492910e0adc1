from __future__ import annotations

from pathlib import Path

import pytest

from aerofuse.cli.predict import list_photos


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b.jpg", "a.JPEG", "notes.txt", "deep/er/c.png", "deep/d.webp", "odd[1].jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("named", "files"),
    [
        (["b.jpg"], ["b.jpg"]),
        (["b.jpg", "b.jpg"], ["b.jpg", "b.jpg"]),
        (["notes.txt"], ["notes.txt"]),  # named: reading it says what it is
        (["none.jpg"], ["none.jpg"]),
        (["."], ["a.JPEG", "b.jpg", "deep/d.webp", "deep/er/c.png", "odd[1].jpg"]),
        (["deep", "b.jpg"], ["deep/d.webp", "deep/er/c.png", "b.jpg"]),
        (["*.jpg"], ["b.jpg", "odd[1].jpg"]),
        (["**/*.png"], ["deep/er/c.png"]),
        (["odd[1].jpg"], ["odd[1].jpg"]),  # a file of that name, and no pattern
        (["-", "b.jpg"], ["a.JPEG", "deep/d.webp", "deep/er/c.png", "b.jpg"]),
    ],
)
def test_files(folder: Path, named: list[str], files: list[str]) -> None:
    found = list_photos(named, ["a.JPEG\n", "\n", "deep\r\n"])
    assert [str(path) for path in found.files] == files
    assert found.empty == ()


def test_what_stands_for_no_file_is_said(folder: Path) -> None:
    found = list_photos(["empty", "*.tiff", "b.jpg"])
    assert [str(path) for path in found.files] == ["b.jpg"]
    assert [name for name, _ in found.empty] == ["empty", "*.tiff"]
    assert "no photo in this folder (.bmp, .gif" in found.empty[0][1]
    assert found.empty[1][1] == "no file matches this pattern"
