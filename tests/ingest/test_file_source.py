from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo

from aerofuse.ingest.file_source import FileSource
from aerofuse.ingest.intake import IntakeSettings
from aerofuse.ingest.listing import Listing
from aerofuse.ingest.table_source import list_table
from tests.data.odd_files import broken_second_page, damaged_avif, shut_folder
from tests.ingest.photo_folder import PhotoFolder, draw_folder


@pytest.fixture
def folder(tmp_path: Path) -> PhotoFolder:
    return draw_folder(tmp_path / "photos", photos=16)


def _source(
    folder: PhotoFolder, work: Path, *, max_bad_fraction: float = 0.2, settings: IntakeSettings | None = None
) -> FileSource:
    listing: Listing = list_table(folder.root, folder.labels)
    return FileSource(
        listing, settings or IntakeSettings(64), work, max_bad_fraction=max_bad_fraction, duplicate_bits=32
    )


def test_photos_and_labels_belong_together(folder: PhotoFolder, tmp_path: Path) -> None:
    source = _source(folder, tmp_path / "work")
    index = source.index()
    assert list(index["filename"]) == list(folder.table["filename"])
    photos = list(source.photos([3, 1], 64, for_training=True))
    for row, photo in zip([3, 1], photos, strict=True):
        expected = folder.table.iloc[row]
        assert (photo.filename, photo.typename) == (expected["filename"], expected["typename"])
        assert photo.clarity == expected["clarity"]


def test_bad_photos_are_left_out_and_listed(folder: PhotoFolder, tmp_path: Path) -> None:
    folder.add("broken.jpg").write_bytes(b"not a photo")
    folder.add("gone.jpg")
    folder.write()
    source = _source(folder, tmp_path / "work")
    assert len(source.index()) == 16
    assert dict(source.dropped.itertuples(index=False)) == {"broken.jpg": "not an image", "gone.jpg": "no such file"}


def test_too_many_bad_photos_stop_with_the_list(folder: PhotoFolder, tmp_path: Path) -> None:
    folder.add("broken.jpg").write_bytes(b"not a photo")
    folder.write()
    with pytest.raises(
        ValueError, match=r"1 of 17 photos cannot be used \(5.9%\), more than data.max_bad_fraction"
    ) as stop:
        _source(folder, tmp_path / "work", max_bad_fraction=0.01)
    assert "row 18, broken.jpg: not an image" in str(stop.value)


def test_all_photos_bad_stops_whatever_is_allowed(folder: PhotoFolder, tmp_path: Path) -> None:
    for path in folder.root.glob("*.jpg"):
        path.unlink()
    with pytest.raises(ValueError, match="16 of 16 photos cannot be used"):
        _source(folder, tmp_path / "work", max_bad_fraction=1.0)


def test_files_that_no_row_names_are_listed(
    folder: PhotoFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.image(0).save(folder.root / "extra.png")
    (folder.root / "notes.txt").touch()
    assert _source(folder, tmp_path / "work").unlisted == ("extra.png",)
    assert "1 image files are not in the table, such as extra.png" in caplog.text


def test_nested_folders_and_chinese_names(folder: PhotoFolder, tmp_path: Path) -> None:
    folder.image(0).save(folder.add("机场/北京/照片.jpg", typename=folder.table["typename"][0]))
    folder.write()
    assert "机场/北京/照片.jpg" in list(_source(folder, tmp_path / "work").index()["filename"])


def test_letters_composed_otherwise_are_the_same_file(folder: PhotoFolder, tmp_path: Path) -> None:
    folder.image(0).save(folder.root / unicodedata.normalize("NFD", "Zürich.jpg"))
    folder.add(unicodedata.normalize("NFC", "Zürich.jpg"))
    folder.write()
    assert not len(_source(folder, tmp_path / "work").dropped)


def test_names_composed_otherwise_are_two_files_where_there_are_two(folder: PhotoFolder, tmp_path: Path) -> None:
    names = [unicodedata.normalize(form, "Zürich.jpg") for form in ("NFC", "NFD")]
    for row, name in enumerate(names):
        folder.image(row).save(folder.add(name, like=row))
    folder.write()
    listing = list_table(folder.root, folder.labels)
    assert [path.name for path in listing.table["path"].iloc[-2:]] == names
    assert listing.unlisted == ()


def test_one_file_under_two_names_is_listed_twice(folder: PhotoFolder) -> None:
    folder.image(0).save(folder.root / unicodedata.normalize("NFC", "Zürich.jpg"))
    for form in ("NFC", "NFD"):
        folder.add(unicodedata.normalize(form, "Zürich.jpg"))
    folder.write()
    with pytest.raises(ValueError, match=r"keep one row of each:\n  row 18, row 19: .*Zürich\.jpg"):
        list_table(folder.root, folder.labels)


def test_a_link_that_leaves_the_root_is_refused(folder: PhotoFolder, tmp_path: Path) -> None:
    outside = tmp_path / "outside.jpg"
    folder.image(0).save(outside)
    folder.add("link.jpg").symlink_to(outside)
    folder.write()
    with pytest.raises(ValueError, match=r"row 18, filename 'link\.jpg': a link that leaves data\.root"):
        list_table(folder.root, folder.labels)


def test_a_link_to_itself_is_one_bad_photo(folder: PhotoFolder, tmp_path: Path) -> None:
    folder.add("loop.jpg").symlink_to("loop.jpg")
    folder.write()
    assert list(_source(folder, tmp_path / "work").dropped["filename"]) == ["loop.jpg"]


@pytest.mark.parametrize("cache_dir", [None, "elsewhere"])
def test_links_that_dvc_made_are_followed(
    cache_dir: str | None, folder: PhotoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    repo = Repo.init(no_scm=True)
    with repo.config.edit() as config:
        config["cache"] |= {"type": ["symlink"]} | ({"dir": str(tmp_path / cache_dir)} if cache_dir else {})
    repo.close()
    with Repo() as repo:
        repo.add([str(folder.root / name) for name in folder.table["filename"][:3]])
    assert (folder.root / folder.table["filename"][2]).is_symlink()
    source = _source(folder, tmp_path / "work")
    assert len(source.index()) == 16
    outside = tmp_path / "outside.jpg"
    folder.image(0).save(outside)
    folder.add("link.jpg").symlink_to(outside)
    folder.write()
    with pytest.raises(ValueError, match=r"filename 'link\.jpg': a link that leaves data\.root"):
        list_table(folder.root, folder.labels)


def test_files_that_break_their_decoder_are_left_out_by_name(folder: PhotoFolder, tmp_path: Path) -> None:
    folder.add("bad.avif").write_bytes(damaged_avif())
    folder.add("bad.tif").write_bytes(broken_second_page())
    folder.add("long" * 74 + ".jpg")
    folder.write()
    dropped = _source(folder, tmp_path / "work").dropped
    assert list(dropped["filename"]) == ["bad.avif", "bad.tif", "long" * 74 + ".jpg"]
    assert [reason.partition(" (")[0] for reason in dropped["reason"]] == [
        "damaged or truncated",
        "damaged or truncated",
        "cannot be read",
    ]


def test_photos_without_permission_are_left_out(
    folder: PhotoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})  # in this process
    folder.image(0).save(folder.add("shut/a.jpg"))
    folder.write()
    stat = os.stat

    def refuse(path: Any, *arguments: Any, **keywords: Any) -> os.stat_result:
        if Path(os.fsdecode(path)).parent == folder.root / "shut":
            raise PermissionError(13, "Permission denied")
        return stat(path, *arguments, **keywords)

    monkeypatch.setattr(os, "stat", refuse)
    shut_folder(monkeypatch, folder.root / "shut")
    dropped = _source(folder, tmp_path / "work").dropped
    assert dropped.to_numpy().tolist() == [["shut/a.jpg", "cannot be read (Permission denied)"]]
    assert f"{folder.root}/shut: cannot be read (Permission denied)" in caplog.text


def test_names_that_are_not_utf8_can_be_reported(folder: PhotoFolder, tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder.root) + b"/\xff.jpg")).touch()
    assert _source(folder, tmp_path / "work").unlisted == ("\\xff.jpg",)


@pytest.mark.parametrize("name", ["nowhere", "photos/labels.csv"])
def test_a_root_that_is_no_folder(folder: PhotoFolder, tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match="name the folder with your photos"):
        list_table(tmp_path / name, folder.labels)


def test_copies_and_airframes_are_one_group(folder: PhotoFolder, tmp_path: Path) -> None:
    folder.table["registration"] = [f"R-{number}" for number in range(16)]
    folder.table.loc[[2, 9], "registration"] = "SAME"
    folder.image(5).resize((60, 45)).save(folder.add("copy.png", like=5, registration=None))
    folder.write()
    index = _source(folder, tmp_path / "work").index().set_index("filename")
    names = list(folder.table["filename"])
    assert index.loc["copy.png", "group"] == index.loc[names[5], "group"]
    assert index.loc[names[2], "group"] == index.loc[names[9], "group"]
    assert index["group"].nunique() == 15


def test_a_crop_needs_boxes(folder: PhotoFolder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.crop\.to_box is true, and no photo has a box"):
        _source(folder, tmp_path / "work", settings=IntakeSettings(64, crop_padding=0.1))


def test_only_training_photos_are_cropped(folder: PhotoFolder, tmp_path: Path) -> None:
    folder.table[["xmin", "ymin", "xmax", "ymax"]] = (10, 10, 90, 80)
    folder.write()
    source = _source(folder, tmp_path / "work", settings=IntakeSettings(64, crop_padding=0.1))
    whole, cropped = (next(source.photos([0], 64, for_training=training)).image for training in (False, True))
    assert (whole != cropped).any()
