from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from aerofuse.data import intake
from aerofuse.data.intake import Intake, IntakeSettings, PhotoFile
from aerofuse.data.photo_files import Box, open_photo
from tests.data.photo_folder import PhotoFolder, draw_folder

_SETTINGS = IntakeSettings(64)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PhotoFolder:
    monkeypatch.setattr(intake, "_SHARD_FILES", 4)
    return draw_folder(tmp_path / "photos", photos=16)


def _files(folder: PhotoFolder) -> list[PhotoFile]:
    return [PhotoFile(folder.root / name) for name in folder.table["filename"]]


def test_photos_come_back_in_order(folder: PhotoFolder, tmp_path: Path) -> None:
    taken = Intake(_files(folder), _SETTINGS, tmp_path / "work")
    assert taken.facts["problem"].isna().all()
    assert taken.facts["width"].eq(128).all()
    for row in (0, 7, 15):
        image = taken.image(row)
        assert image.shape == (64, 64, 3)
        expected = np.asarray(folder.picture(row).resize((64, 48)), dtype=float)
        assert np.abs(image[8:56].astype(float) - expected).mean() < 6


def test_a_bad_photo_has_a_reason_and_the_others_are_there(folder: PhotoFolder, tmp_path: Path) -> None:
    (folder.root / folder.table["filename"][3]).write_bytes(b"")
    (folder.root / folder.table["filename"][5]).unlink()
    problems = Intake(_files(folder), _SETTINGS, tmp_path / "work").facts["problem"]
    assert problems.dropna().to_dict() == {3: "the file is empty", 5: "no such file"}


def _read(monkeypatch: pytest.MonkeyPatch, files: list[PhotoFile], settings: IntakeSettings, work: Path) -> list[str]:
    """The names of the files that are opened."""
    opened: list[str] = []
    original = open_photo

    def seen(path: Path, *args: int, **keywords: int) -> object:
        opened.append(path.name)
        return original(path, *args, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(intake, "open_photo", seen)
        patch.setattr(os, "sched_getaffinity", lambda process: {0})  # in this process
        Intake(files, settings, work)
    return opened


def test_what_is_there_is_not_read_again(folder: PhotoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, work = _files(folder), tmp_path / "work"
    assert len(_read(monkeypatch, files, _SETTINGS, work)) == 16
    assert _read(monkeypatch, files, _SETTINGS, work) == []
    assert len(_read(monkeypatch, files[:-1], _SETTINGS, work)) < 8
    assert len(_read(monkeypatch, files, IntakeSettings(32), work)) == 16


def test_a_changed_file_is_read_again(folder: PhotoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, work = _files(folder), tmp_path / "work"
    _read(monkeypatch, files, _SETTINGS, work)
    folder.picture(1).save(files[0].path)
    opened = _read(monkeypatch, files, _SETTINGS, work)
    assert files[0].path.name in opened
    assert len(opened) < 16


def test_after_an_interruption_it_goes_on(folder: PhotoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, work = _files(folder), tmp_path / "work"
    original = open_photo
    count = 0

    def interrupted(path: Path, *args: int, **keywords: int) -> object:
        nonlocal count
        count += 1
        if count > 10:
            raise KeyboardInterrupt
        return original(path, *args, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(intake, "open_photo", interrupted)
        patch.setattr(os, "sched_getaffinity", lambda process: {0})
        with pytest.raises(KeyboardInterrupt):
            Intake(files, _SETTINGS, work)
    assert 0 < len(_read(monkeypatch, files, _SETTINGS, work)) < 16
    assert Intake(files, _SETTINGS, work).facts["problem"].isna().all()


def test_what_is_not_wanted_any_more_is_removed(folder: PhotoFolder, tmp_path: Path) -> None:
    work = tmp_path / "work"
    Intake(_files(folder), _SETTINGS, work)
    before = {path.name for path in work.iterdir()}
    Intake(_files(folder), IntakeSettings(32), work)
    after = {path.name for path in work.iterdir()}
    assert before.isdisjoint(after)
    assert len(after) == len(before)


def test_one_and_several_processes_give_the_same_bytes(
    folder: PhotoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Intake(_files(folder), _SETTINGS, tmp_path / "several")
    _read(monkeypatch, _files(folder), _SETTINGS, tmp_path / "one")
    for path in (tmp_path / "several").iterdir():
        assert path.read_bytes() == (tmp_path / "one" / path.name).read_bytes()


def test_a_crop_is_kept_beside_the_whole_photo(folder: PhotoFolder, tmp_path: Path) -> None:
    first, second, *_ = _files(folder)
    files = [PhotoFile(first.path, Box(20, 20, 60, 60)), second]
    taken = Intake(files, IntakeSettings(64, crop_padding=0.0), tmp_path / "work")
    assert not np.array_equal(taken.image(0), taken.image(0, cropped=True))
    np.testing.assert_array_equal(taken.image(1), taken.image(1, cropped=True))
