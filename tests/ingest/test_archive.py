from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from aerofuse.ingest.fgvc_source import extract_archive


def _tar(path: Path, add: Callable[[tarfile.TarFile], None]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        add(tar)
    return path


def _file(name: str) -> Callable[[tarfile.TarFile], None]:
    def add(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))

    return add


def _link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> Callable[[tarfile.TarFile], None]:
    def add(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        tar.addfile(info)

    return add


def test_files_are_unpacked(tmp_path: Path) -> None:
    folder = extract_archive(_tar(tmp_path / "a.tar.gz", _file("data/x.txt")), tmp_path / "out")
    assert (folder / "data" / "x.txt").read_bytes() == b"abc"


@pytest.mark.parametrize(
    "add",
    [
        _file("../outside.txt"),
        _file("data/../../outside.txt"),
        _link("data", ".."),
        _link("data", "/etc"),
        _link("data", "../outside", tarfile.LNKTYPE),
        _link("data/device", "", tarfile.CHRTYPE),
    ],
    ids=["parent", "hidden parent", "link to the parent", "absolute link", "hard link", "device"],
)
def test_nothing_leaves_the_folder(add: Callable[[tarfile.TarFile], None], tmp_path: Path) -> None:
    archive = _tar(tmp_path / "a.tar.gz", add)
    with pytest.raises(ValueError, match="is not safe to unpack"):
        extract_archive(archive, tmp_path / "work" / "out")
    assert not (tmp_path / "work" / "out").exists()
    assert not (tmp_path / "work" / "outside.txt").exists()
    assert not (tmp_path / "outside.txt").exists()


def test_an_absolute_path_stays_inside(tmp_path: Path) -> None:
    folder = extract_archive(_tar(tmp_path / "a.tar.gz", _file("/outside-of-everything.txt")), tmp_path / "out")
    assert (folder / "outside-of-everything.txt").is_file()
    assert not Path("/outside-of-everything.txt").exists()


@pytest.mark.parametrize("content", [b"", b"<html>no</html>", None], ids=["empty", "a page", "cut off"])
def test_a_damaged_archive_is_named(content: bytes | None, tmp_path: Path) -> None:
    archive = _tar(tmp_path / "a.tar.gz", _file("x.txt"))
    archive.write_bytes(archive.read_bytes()[:60] if content is None else content)
    with pytest.raises(ValueError, match=r"(?s)a\.tar\.gz cannot be unpacked: .*; download it again"):
        extract_archive(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()
