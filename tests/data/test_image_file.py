from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from aerofuse.data.image_file import DAMAGED_METADATA, UnreadablePhotoError, find_photos, suffixes
from aerofuse.data.photo import open_photo
from tests.data.odd_files import (
    broken_second_page,
    damaged_avif,
    heic_start,
    jpeg_with,
    mpo,
    noise,
    png_with,
    raw_with_thumbnail,
    saved,
    shut_folder,
    tiff,
    write,
)

_DEEP = np.full((64, 96), 30000, np.uint16)
_RAW: dict[str, bytes] = {
    "dng": raw_with_thumbnail(),
    "dng of one picture": tiff(_DEEP, {50706: (1, 4, bytes((1, 4, 0, 0)))}),
    "sensor values": tiff(_DEEP, {262: (3, 1, struct.pack("<H", 32803))}),
    "cr2": b"II*\0\x10\0\0\0CR\x02\0" + tiff(_DEEP)[8:],
    "cr3": struct.pack(">I", 24) + b"ftypcrx " + bytes(200),
    "orf": b"IIRO" + tiff(_DEEP)[4:],
    "rw2": b"IIU\0" + tiff(_DEEP)[4:],
    "raf": b"FUJIFILMCCD-RAW 0201" + bytes(200),
}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (damaged_avif(), "damaged or truncated"),
        (broken_second_page(), "damaged or truncated"),
        (heic_start()[:40], "a HEIC photo; pip install 'aerofuse\\[heif\\]' reads it, or export a JPEG|damaged"),
        *((content, "a raw file; export a JPEG") for content in _RAW.values()),
    ],
    ids=["avif", "second page", "heic", *_RAW],
)
def test_a_file_that_cannot_be_used_has_a_reason(content: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UnreadablePhotoError, match=reason):
        open_photo(write(tmp_path, "a.jpg", content), 32)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("x"), TypeError(), KeyError(3), ZeroDivisionError(), MemoryError(), RecursionError()],
    ids=repr,
)
def test_whatever_a_decoder_raises_is_a_reason(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail, raising=False)
    with pytest.raises(UnreadablePhotoError, match=r"damaged or truncated|too large for the memory"):
        open_photo(write(tmp_path, "a.png", saved(noise(), "PNG")), 32)


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(UnreadablePhotoError, match=r"cannot be read \(File name too long\)"):
        open_photo(tmp_path / ("a" * 296 + ".jpg"), 32)


@pytest.mark.parametrize("shut", ["stat", "open"])
def test_a_file_without_permission(shut: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "a.png", saved(noise(), "PNG"))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:  # a test that runs as root may read everything
        patch.setattr(Path, shut, refuse)
        with pytest.raises(UnreadablePhotoError, match=r"cannot be read \(Permission denied\)"):
            open_photo(path, 32)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to("gone.jpg")
    for name, reason in (("pipe.jpg", "a device or a pipe"), ("link.jpg", r"a link to a file that is missing \(gone")):
        with pytest.raises(UnreadablePhotoError, match=reason):
            open_photo(tmp_path / name, 32)


def _text(words: bytes) -> bytes:
    return b"Comment\0" + words


def _large_profile() -> bytes:
    return b"large\0\0" + zlib.compress(bytes(5_000_000))


_PNG: dict[str, bytes] = {
    "large profile": png_with((b"iCCP", _large_profile())),
    "EXIF that is none": png_with((b"eXIf", b"Exif\0\0MM" + bytes(20))),
    "wrong checksum": png_with((b"tEXt", _text(b"hello")), checksum_right=False),
    "large text": png_with((b"zTXt", b"Comment\0\0" + zlib.compress(bytes(5_000_000)))),
    "profile that is none": png_with((b"iCCP", b"odd\0\0" + zlib.compress(b"no profile" * 20))),
}


@pytest.mark.parametrize("kind", _PNG)
def test_damaged_metadata_is_no_damaged_picture(kind: str, tmp_path: Path) -> None:
    photo = open_photo(write(tmp_path, "a.png", _PNG[kind]), 32)
    assert photo.remarks == (DAMAGED_METADATA,)
    np.testing.assert_array_equal(np.asarray(photo.image), np.asarray(noise()))


@pytest.mark.parametrize(
    ("marker", "data"),
    [
        (0xE1, b"Exif\0\0II*\0\xff\xff\xff\x7f"),
        (0xE1, b"Exif\0\0" + bytes(30)),
        (0xE2, b"MPF\0II*\0" + bytes(40)),
        (0xE2, b"MPF\0" + b"\xff" * 40),
        (0xE2, b"ICC_PROFILE\0\x01\x01" + b"x" * 40),
        (0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0" + b"\xff" * 9),
        (0xE0, b"JFIF\0"),
    ],
)
def test_a_jpeg_with_damaged_metadata(marker: int, data: bytes, tmp_path: Path) -> None:
    photo = open_photo(write(tmp_path, "a.jpg", jpeg_with(marker, data)), 32)
    assert set(photo.remarks) <= {DAMAGED_METADATA}
    plain = open_photo(write(tmp_path, "b.jpg", saved(noise(), "JPEG", quality=95)), 32)
    np.testing.assert_array_equal(np.asarray(photo.image), np.asarray(plain.image))


def test_what_is_sound_is_kept_beside_damaged_metadata(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = png_with((b"eXIf", exif.tobytes()[6:]), (b"iCCP", _large_profile()))
    photo = open_photo(write(tmp_path, "a.png", content), 32)
    assert photo.size == (64, 96)
    assert photo.remarks == (DAMAGED_METADATA, "turned as its EXIF data says")


@pytest.mark.parametrize("orientation", [0, 1, 9, 300])
def test_an_orientation_that_turns_nothing(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = open_photo(write(tmp_path, "a.jpg", saved(noise(), "JPEG", exif=exif)), 32)
    assert (photo.size, photo.remarks) == ((96, 64), ())


@pytest.mark.parametrize("orientation", range(2, 9))
def test_photos_are_turned_as_pillow_turns_them(orientation: int, tmp_path: Path) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    path = write(tmp_path, "a.png", saved(noise(), "PNG", exif=exif))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    np.testing.assert_array_equal(np.asarray(open_photo(path, 32).image), expected)


def test_the_second_picture_of_a_camera_is_no_animation(tmp_path: Path) -> None:
    photo = open_photo(write(tmp_path, "a.jpg", mpo()), 32)
    assert Image.open(tmp_path / "a.jpg").n_frames == 2  # type: ignore[attr-defined]
    assert (photo.size, photo.remarks) == ((96, 64), ())


def test_pages_are_no_animation(tmp_path: Path) -> None:
    content = saved(noise(), "TIFF", save_all=True, append_images=[noise(48, 32)])
    assert open_photo(write(tmp_path, "a.tif", content), 32).remarks == ("several pages: the first is used",)


def test_heic_is_read_where_its_decoder_is(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    path = tmp_path / "IMG_0001.JPG"  # recognised by its content
    heif.from_pillow(noise()).save(tmp_path / "a.heic", quality=95)
    path.write_bytes((tmp_path / "a.heic").read_bytes())
    photo = open_photo(path, 32)
    assert (photo.size, photo.remarks) == ((96, 64), ())
    assert np.abs(np.asarray(photo.image, dtype=int) - np.asarray(noise())).mean() < 8


def test_heic_without_its_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aerofuse.data.image_file._READS_HEIC", False)
    monkeypatch.setattr("aerofuse.data.image_file.readable_formats", lambda: ("JPEG", "PNG"))
    with pytest.raises(UnreadablePhotoError, match=r"a HEIC photo; pip install 'aerofuse\[heif\]' reads it"):
        open_photo(write(tmp_path, "a.jpg", heic_start()), 32)


def test_every_suffix_of_the_reader_is_a_photo(tmp_path: Path) -> None:
    names = ["a.jfif", "b.avif", "c.jp2", "d.jpe", "e.mpo", "f.HEIC", "g.jpg", "h.TIFF", "i.tga"]
    for name in (*names, "notes.txt", "clip.mpg", "page.pdf", "drawing.eps", "raw.NEF"):
        (tmp_path / name).touch()
    found = find_photos(tmp_path)
    assert [path.name for path in found.photos] == names
    assert [path.name for path in found.passed_over] == ["clip.mpg", "drawing.eps", "notes.txt", "page.pdf", "raw.NEF"]
    assert found.problems == ()
    assert {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"} < suffixes()


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    for name in ("root/z/a.jpg", "elsewhere/b.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    root = tmp_path / "root"
    (root / "again").symlink_to(root / "z")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(root)
    (root / "gone.jpg").symlink_to("nowhere")
    found = find_photos(root)
    assert [str(path.relative_to(root)) for path in found.photos] == ["gone.jpg", "linked/b.jpg", "z/a.jpg"]
    assert [str(path.relative_to(root)) for path in found.passed_over] == ["again", "linked/back"]


def test_a_folder_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("shut/a.jpg", "b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    shut_folder(monkeypatch, tmp_path / "shut")
    found = find_photos(tmp_path)
    assert found.photos == (tmp_path / "b.jpg",)
    assert found.problems == ((tmp_path / "shut", "cannot be read (Permission denied)"),)


def test_a_folder_that_is_only_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With permission to read and not to enter, a folder has names, and nothing is known of them."""
    (tmp_path / "a.jpg").touch()
    (tmp_path / "deep").mkdir()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", refuse)
        patch.setattr(os, "lstat", refuse)
        found = find_photos(tmp_path)
    assert found.photos == (tmp_path / "a.jpg",)


def test_profiles_in_files_are_sound(tmp_path: Path) -> None:
    """What the other tests take for a profile that is none: Pillow reads one of its own from a PNG."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = write(tmp_path, "a.png", saved(noise(), "PNG", icc_profile=profile))
    assert open_photo(path, 32).remarks == ()
    assert Image.open(io.BytesIO(path.read_bytes())).info["icc_profile"] == profile
