from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from aerofuse.data.photo import Box, open_photo
from aerofuse.ingest import intake
from aerofuse.ingest.intake import Intake, IntakeSettings, PhotoFile
from tests.ingest.photo_folder import PhotoFolder, draw_folder

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
        expected = np.asarray(folder.image(row).resize((64, 48)), dtype=float)
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

    def seen(path: Path, *args: int, **keywords: Any) -> object:
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
    changed = folder.root / folder.table["filename"][0]
    folder.image(1).save(changed)
    opened = _read(monkeypatch, files, _SETTINGS, work)
    assert changed.name in opened
    assert len(opened) < 16


def test_after_an_interruption_it_goes_on(folder: PhotoFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, work = _files(folder), tmp_path / "work"
    original = open_photo
    count = 0

    def interrupted(path: Path, *args: int, **keywords: Any) -> object:
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


_SLOW = """
import time
from pathlib import Path
from aerofuse.ingest import intake
from tests.ingest.test_intake import wait_for_ever

if __name__ == "__main__":
    intake._SHARD_FILES = 4
    files = [intake.PhotoFile(path) for path in sorted(Path({root!r}).glob("*.jpg"))]
    intake._write_here = wait_for_ever
    intake.Intake(files, intake.IntakeSettings(64), Path({work!r}))
"""


def wait_for_ever(settings: IntakeSettings, work: tuple[list[PhotoFile], Path]) -> int:
    """In place of writing a shard: leaves a file that says which process is at it."""
    work[1].with_suffix(f".{os.getpid()}.partial").touch()
    while True:
        time.sleep(1)


def _wait_for(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core reads in the stage's own process")
def test_processes_end_with_a_run_that_is_killed(folder: PhotoFolder, tmp_path: Path) -> None:
    work = tmp_path / "work"
    script = tmp_path / "slow.py"
    script.write_text(_SLOW.format(root=str(folder.root), work=str(work)))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(["src", "."])}
    run = subprocess.Popen([sys.executable, str(script)], env=environment)
    try:
        _wait_for(lambda: len(list(work.glob("*.partial"))) >= 2)
        readers = psutil.Process(run.pid).children(recursive=True)
        assert len(readers) >= 2
    finally:
        run.kill()
        run.wait()
    _, alive = psutil.wait_procs(readers, timeout=20)
    assert not alive
    Intake(_files(folder), _SETTINGS, work)
    assert not list(work.glob("*.partial"))


def test_what_another_run_is_writing_stays(folder: PhotoFolder, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    ours, left = work / f"0.{os.getpid()}.partial", work / "0.partial"
    ours.touch()
    left.touch()
    Intake(_files(folder), _SETTINGS, work)
    assert ours.exists()
    assert not left.exists()


def test_a_few_processes_read_however_many_cores_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes memory, and all together stay below a limit."""
    started: list[int] = []

    class Pool:
        def __init__(self, processes: int, *arguments: object) -> None:
            started.append(processes)

        def __enter__(self) -> Pool:
            return self

        def __exit__(self, *error: object) -> None: ...

        def map(self, write: object, work: list[object]) -> list[int]:
            return [1] * len(work)

    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)))
    monkeypatch.setattr(intake, "ProcessPoolExecutor", Pool)
    assert list(intake.take_in_here([([], Path("shard"))] * 100, _SETTINGS)) == [1] * 100
    assert started == [4]


def test_pages_of_photos_looked_at_are_given_back(folder: PhotoFolder, tmp_path: Path) -> None:
    taken = Intake(_files(folder), _SETTINGS, tmp_path / "work")
    for row in range(16):
        np.testing.assert_array_equal(taken.image(row), taken.image(row))
    assert _resident_of(tmp_path / "work") == 0


def _resident_of(folder: Path) -> int:
    """Bytes of the files in `folder` that are mapped and in this process's memory."""
    return sum(int(found.rss) for found in psutil.Process().memory_maps() if found.path.startswith(str(folder)))


def test_one_lock_is_held_for_a_large_photo_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = multiprocessing.get_context("spawn").Lock()
    held: list[bool] = []
    original = Image.Image.load

    def seen(image: Image.Image) -> object:
        held.append(not lock.acquire(block=False))
        if not held[-1]:
            lock.release()
        return original(image)

    Image.new("RGB", (80, 60)).save(tmp_path / "a.png")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", seen, raising=False)
    open_photo(tmp_path / "a.png", 30, large_at_a_time=lock)
    assert not any(held)
    held.clear()
    monkeypatch.setattr("aerofuse.data.photo.LARGE_PIXELS", 1000)
    open_photo(tmp_path / "a.png", 30, large_at_a_time=lock)
    assert held[0]
    assert lock.acquire(block=False)
