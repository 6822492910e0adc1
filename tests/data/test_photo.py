from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from aerofuse.data.photo import Box, UnreadablePhotoError, crop_to_box, fit_square, open_photo


def _image(width: int = 80, height: int = 60) -> Image.Image:
    """Red on the left, blue on the right, white above."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = 220
    pixels[:, width // 2 :, 2] = 220
    pixels[: height // 4] = 255
    return Image.fromarray(pixels)


def _save(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


def _deep_grey() -> Image.Image:
    return Image.fromarray(np.asarray(_image().convert("L")).astype(np.uint16) * 257)


def _deep_colour(path: Path, *, transparent: bool = False) -> Path:
    """As cameras and scanners write it, which Pillow cannot: 16 bits in each of three or four channels."""
    deep = np.asarray(_image())[..., ::-1].astype(np.uint16) * 257
    if transparent:
        deep = np.dstack([deep, np.full(deep.shape[:2], 65535, np.uint16)])
    assert cv2.imwrite(str(path), deep)
    return path


def deep_planes(path: Path) -> Path:
    """A TIFF of 16 bits whose red, green and blue are three images, one after the other."""
    pixels = np.asarray(_image()).astype("<u2") * 257
    planes = [pixels[..., channel].tobytes() for channel in range(3)]
    header, entries, size = 8, 10, len(planes[0])
    behind = header + 2 + 12 * entries + 4
    data = behind + 6 + 12 + 12
    tags = [
        (256, 4, 1, 80), (257, 4, 1, 60), (258, 3, 3, behind), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, 3, behind + 6), (277, 3, 1, 3), (278, 4, 1, 60), (279, 4, 3, behind + 18), (284, 3, 1, 2),
    ]  # fmt: skip
    content = struct.pack("<2sHIH", b"II", 42, header, entries)
    content += b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    content += struct.pack("<3H", 16, 16, 16) + struct.pack("<3I", *(data + size * plane for plane in range(3)))
    path.write_bytes(content + struct.pack("<3I", size, size, size) + b"".join(planes))
    return path


def floats(path: Path) -> Path:
    assert cv2.imwrite(str(path), np.asarray(_image()).astype(np.float32) / 255)
    return path


def _transparent() -> Image.Image:
    image = _image().convert("RGBA")
    image.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 80, dtype=np.uint8), (60, 1))))
    return image


def _animated(path: Path) -> Path:
    first, second = _image(), Image.new("RGB", (80, 60), "black")
    return _save(first, path, save_all=True, append_images=[second], duration=100)


def _turned(path: Path) -> Path:
    exif = Image.Exif()
    exif[0x0112] = 6  # as a camera held upright writes it: turn by 90 degrees to the right
    return _save(_image().transpose(Image.Transpose.ROTATE_90), path, exif=exif)


READABLE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "jpeg": (lambda folder: _save(_image(), folder / "a.jpg", quality=95), ""),
    "progressive": (lambda folder: _save(_image(), folder / "a.jpg", quality=95, progressive=True), ""),
    "turned": (lambda folder: _turned(folder / "a.jpg"), "turned as its EXIF data says"),
    "png": (lambda folder: _save(_image(), folder / "a.png"), ""),
    "palette": (lambda folder: _save(_image().quantize(64), folder / "a.png"), ""),
    "webp": (lambda folder: _save(_image(), folder / "a.webp", lossless=True), ""),
    "bmp": (lambda folder: _save(_image(), folder / "a.bmp"), ""),
    "tiff": (lambda folder: _save(_image(), folder / "a.tif"), ""),
    "wrong extension": (lambda folder: _save(_image(), folder / "a.jpg", format="PNG"), ""),
    "no extension": (lambda folder: _save(_image(), folder / "a", format="PNG"), ""),
    "cmyk": (lambda folder: _save(_image().convert("CMYK"), folder / "a.jpg", quality=95), "CMYK"),
    "animated": (lambda folder: _animated(folder / "a.gif"), "animated: the first frame is used"),
    "16 bits, png": (lambda folder: _deep_colour(folder / "a.png"), ""),
    "16 bits, tiff": (lambda folder: _deep_colour(folder / "a.tif"), ""),
    "16 bits with opaque alpha, tiff": (
        lambda folder: _deep_colour(folder / "a.tif", transparent=True),
        "transparent: put on white",
    ),
    "large": (lambda folder: _save(_image(8000, 6000), folder / "a.jpg"), ""),
}


@pytest.mark.parametrize("kind", READABLE)
def test_photos_of_every_kind_are_read_right(kind: str, tmp_path: Path) -> None:
    write, remark = READABLE[kind]
    photo = open_photo(write(tmp_path), 30)
    assert photo.size in ((80, 60), (8000, 6000))
    assert photo.image.mode == "RGB"
    assert list(photo.remarks) == ([remark] if remark else [])
    pixels = np.asarray(photo.image.resize((80, 60)), dtype=int)
    for x, expected in ((20, (220, 0, 0)), (60, (0, 0, 220))):
        assert np.abs(pixels[45, x] - expected).max() < 40
    assert pixels[5].min() > 215


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_grey_photo(tmp_path: Path, suffix: str) -> None:
    photo = open_photo(_save(_image().convert("L"), tmp_path / f"a.{suffix}"), 30)
    assert photo.remarks == ("grey",)
    assert np.abs(np.asarray(photo.image, dtype=int)[45, 20] - 66).max() < 6


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_are_brought_to_8(tmp_path: Path, suffix: str) -> None:
    photo = open_photo(_save(_deep_grey(), tmp_path / f"a.{suffix}"), 30)
    assert photo.remarks == ("more than 8 bits a channel",)
    np.testing.assert_array_equal(np.asarray(photo.image.convert("L")), np.asarray(_image().convert("L")))


def test_transparency_is_put_on_white(tmp_path: Path) -> None:
    photo = open_photo(_save(_transparent(), tmp_path / "a.png"), 30)
    assert photo.remarks == ("transparent: put on white",)
    pixels = np.asarray(photo.image, dtype=int)
    assert pixels[45, 0].min() > 245
    assert np.abs(pixels[45, 79] - (0, 0, 220)).max() < 10


def _truncated(folder: Path) -> Path:
    path = _save(_image(400, 300), folder / "a.jpg")
    path.write_bytes(path.read_bytes()[:3000])
    return path


def broken_png(folder: Path) -> Path:
    path = _save(_image(), folder / "a.png")
    content = bytearray(path.read_bytes())
    content[60:70] = b"0123456789"
    path.write_bytes(bytes(content))
    return path


def bomb(folder: Path) -> Path:
    """A PNG that says it is 30,000 pixels square."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    header = (30_000).to_bytes(4) * 2 + bytes((8, 2, 0, 0, 0))
    path = folder / "a.png"
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


def _bytes(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


UNREADABLE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "empty": (lambda folder: _bytes(folder, "a.jpg", b""), "the file is empty"),
    "text": (lambda folder: _bytes(folder, "a.jpg", b"<html>not found</html>"), "not an image"),
    "truncated": (_truncated, "damaged or truncated"),
    "damaged": (broken_png, "damaged or truncated"),
    "one pixel": (lambda folder: _save(Image.new("RGB", (1, 1)), folder / "a.png"), "1 x 1 pixels: too small"),
    "a line": (lambda folder: _save(Image.new("RGB", (4000, 3)), folder / "a.png"), "4000 x 3 pixels: too small"),
    "bomb": (bomb, "decompression bomb"),
    "missing": (lambda folder: folder / "a.jpg", "no such file"),
    "16 bits in planes": (lambda folder: deep_planes(folder / "a.tif"), "one after the other; save it interleaved"),
    "floats": (lambda folder: floats(folder / "a.tif"), "a TIFF of a kind that cannot be read; save it with 8 or 16"),
    "folder": (lambda folder: folder, "a folder, and no photo"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_cannot_be_used_has_a_reason(kind: str, tmp_path: Path) -> None:
    write, reason = UNREADABLE[kind]
    with pytest.raises(UnreadablePhotoError, match=reason):
        open_photo(write(tmp_path), 30)


def test_another_case_is_pointed_out(tmp_path: Path) -> None:
    _save(_image(), tmp_path / "A.JPG", format="JPEG")
    with pytest.raises(UnreadablePhotoError, match=r"no such file; there is A\.JPG"):
        open_photo(tmp_path / "a.jpg", 30)


@pytest.mark.parametrize(("mode", "turn"), [("RGB", 1), ("RGB", 6), ("RGBA", 1), ("CMYK", 1), ("L", 6), ("P", 6)])
def test_a_large_photo_is_read_like_any_other(
    mode: str, turn: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made smaller early on, and is then as a small one."""
    exif = Image.Exif()
    exif[0x0112] = turn
    original = _image(800, 600)
    image = original.quantize(64) if mode == "P" else original.convert(mode)
    path = _save(image, tmp_path / "a.tif", exif=exif)
    whole = open_photo(path, 30)
    monkeypatch.setattr("aerofuse.data.photo.LARGE_PIXELS", 100_000)
    large = open_photo(path, 30)
    assert large.size == whole.size == ((800, 600) if turn == 1 else (600, 800))
    assert large.remarks == whole.remarks
    assert min(large.image.size) == (600 if mode == "P" else 120)
    difference = np.abs(fit_square(large.image, 30, "letterbox").astype(int) - fit_square(whole.image, 30, "letterbox"))
    assert difference.mean() < 3


def test_200_megapixels_are_no_bomb_yet(tmp_path: Path) -> None:
    """A telephone's largest; Pillow by itself refuses them."""
    photo = open_photo(_save(Image.new("L", (16_320, 12_240), 90), tmp_path / "a.jpg"), 30)
    assert photo.size == (16_320, 12_240)


def test_a_large_jpeg_is_decoded_small(tmp_path: Path) -> None:
    photo = open_photo(_save(_image(4000, 3000), tmp_path / "a.jpg"), 224)
    assert 448 <= min(photo.image.size) < 1500
    assert photo.size == (4000, 3000)


def test_the_banner_goes(tmp_path: Path) -> None:
    image = _image(400, 320)
    image.paste("lime", (0, 300, 400, 320))
    photo = open_photo(_save(image, tmp_path / "a.png"), 30, banner_px=20)
    assert photo.size == (400, 300)
    assert photo.image.size == (400, 300)
    assert np.asarray(photo.image)[..., 1].max() == 255  # the white above
    assert (np.asarray(photo.image)[-1, :, 1] == 0).all()


def test_the_whole_photo_is_fitted_into_a_square() -> None:
    square = fit_square(_image(80, 40), 64, "letterbox")
    assert square.shape == (64, 64, 3)
    np.testing.assert_array_equal(square[0, 0], (124, 116, 104))
    np.testing.assert_array_equal(square[63, 63], (124, 116, 104))
    assert square[40, 10, 0] > 200
    assert square[40, 54, 2] > 200


@pytest.mark.parametrize("size", [(16, 5000), (5000, 16), (1, 500)])
def test_a_strip_is_one_pixel_wide_at_least(size: tuple[int, int]) -> None:
    square = fit_square(Image.new("RGB", size, "red"), 64, "letterbox")
    assert square.shape == (64, 64, 3)
    assert (square == (255, 0, 0)).all(axis=2).any()


@pytest.mark.parametrize("size", [(120, 61), (61, 120), (5000, 16), (1, 500), (64, 64)])
def test_a_cropped_photo_is_the_square_in_its_middle(size: tuple[int, int]) -> None:
    image, side = Image.new("RGB", size, "red"), min(size)
    image.paste("blue", ((size[0] - side) // 2, (size[1] - side) // 2, (size[0] + side) // 2, (size[1] + side) // 2))
    square = fit_square(image, 64, "crop")
    assert square.shape == (64, 64, 3)
    assert (square[2:-2, 2:-2] == (0, 0, 255)).all()


@pytest.mark.parametrize("size", [(120, 61), (61, 120), (5000, 16), (1, 500)])
def test_a_stretched_photo_is_whole_and_fills_the_square(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, "red")
    image.paste("blue", (0, 0, size[0], size[1] // 2))
    square = fit_square(image, 64, "stretch")
    assert square.shape == (64, 64, 3)
    assert (square[:28] == (0, 0, 255)).all()
    assert (square[36:] == (255, 0, 0)).all()


def test_a_crop_is_that_of_the_box_with_its_padding(tmp_path: Path) -> None:
    image = Image.new("RGB", (800, 600))
    image.paste("red", (200, 150, 400, 250))
    photo = open_photo(_save(image, tmp_path / "a.png"), 30)
    part = np.asarray(crop_to_box(photo, Box(200, 150, 400, 250), 0.0))
    assert part.shape == (100, 200, 3)
    assert (part == (255, 0, 0)).all()
    assert crop_to_box(photo, Box(200, 150, 400, 250), 0.1).size == (240, 120)
    assert crop_to_box(photo, Box(0, 0, 800, 600), 0.5).size == (800, 600)


def test_a_box_is_in_pixels_of_the_file_not_of_what_was_decoded(tmp_path: Path) -> None:
    image = Image.new("RGB", (4000, 3000))
    image.paste("red", (1000, 1000, 3000, 2000))
    photo = open_photo(_save(image, tmp_path / "a.jpg", quality=95), 100)
    part = np.asarray(crop_to_box(photo, Box(1000, 1000, 3000, 2000), 0.0))
    assert photo.image.width < 4000
    assert part.shape[1] == 2 * part.shape[0]
    assert part[..., 0].mean() > 240


def test_a_box_outside_of_the_photo_is_refused(tmp_path: Path) -> None:
    photo = open_photo(_save(_image(), tmp_path / "a.png"), 30)
    with pytest.raises(UnreadablePhotoError, match="its box begins at 90, 10, outside of 80 x 60 pixels"):
        crop_to_box(photo, Box(90, 10, 95, 20), 0.0)
