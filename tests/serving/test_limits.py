from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageFile

from aerofuse.data.photo import MAX_PIXELS, UnreadablePhotoError
from aerofuse.serving.limits import Limits, read_content
from tests.data.odd_files import png_with
from tests.serving.photos import as_base64, png_bomb, write_photo

LIMITS = Limits(max_photo_bytes=50_000, max_photo_pixels=1_000_000, max_photos=2)


@pytest.fixture
def photo(tmp_path: Path) -> bytes:
    return write_photo(tmp_path / "photo.jpg").read_bytes()


def test_bytes_and_base64_are_the_same_file(photo: bytes) -> None:
    wrapped = "\n".join(as_base64(photo)[start : start + 76] for start in range(0, len(as_base64(photo)), 76))
    for cell in (photo, bytearray(photo), as_base64(photo), wrapped):
        assert read_content(cell, LIMITS) == photo


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (None, "no photo"),
        (float("nan"), "no photo"),
        (["a"], "no photo"),
        (b"", "the file is empty"),
        ("", "the file is empty"),
        ("http://127.0.0.1/photo.jpg", "not base64"),
        ("Flugzeug-é", "not base64"),
        (as_base64(b"no photo at all"), "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not an image that is taken here: JPEG"),
        (bytes(50_001), "larger than 50000 bytes"),
        ("A" * 70_000, "larger than 50000 bytes"),
        ("A" * 1_000_000, "larger than 50000 bytes"),
    ],
    ids=["null", "nan", "list", "no bytes", "no text", "address", "not ascii", "text", "eps", "large", "coded", "huge"],
)
def test_what_is_refused(cell: object, reason: str) -> None:
    with pytest.raises(UnreadablePhotoError, match=reason):
        read_content(cell, LIMITS)


def test_damaged_metadata_refuses_no_photo() -> None:
    content = png_with((b"tEXt", b"Comment\0hello"), checksum_right=False)
    assert read_content(content, LIMITS) == content


@pytest.mark.parametrize("side_px", [1_001, 15_000, 30_000], ids=["ours", "Pillow's warning", "Pillow's limit"])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(side_px: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decode)
    with pytest.raises(UnreadablePhotoError, match="more than 1000000 pixels: a decompression bomb"):
        read_content(png_bomb(side_px), LIMITS)


def test_as_many_pixels_as_are_allowed(tmp_path: Path) -> None:
    Image.new("L", (1_000, 1_000)).save(tmp_path / "full.png")
    assert read_content((tmp_path / "full.png").read_bytes(), LIMITS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_photo_bytes": 0}, "max_photo_bytes is a whole number from 1 up, not 0"),
        ({"max_photos": True}, "max_photos is a whole number from 1 up, not True"),
        ({"max_photo_pixels": MAX_PIXELS + 1}, "no photo of more than"),
        ({"max_pictures": 3}, "unknown limit max_pictures; there are max_photo_bytes"),
    ],
)
def test_limits_that_are_none(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Limits.from_settings(settings)


def test_settings_replace_what_they_name() -> None:
    assert Limits.from_settings({"max_photos": 3}) == Limits(max_photos=3)
