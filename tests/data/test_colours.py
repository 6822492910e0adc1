from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms

from aerofuse.data.colours import DEEP
from aerofuse.data.image_file import DAMAGED_METADATA, UnreadablePhotoError
from aerofuse.data.photo import open_photo
from tests.data.odd_files import noise, real, saved, short, tiff, write

_Tags = Mapping[int, tuple[int, int, bytes]]
_MAX, _FLOAT_MAX, _WHITE_IS_ZERO = 281, 341, {262: short(0)}
# 0 to 1, of a picture that is neither dark nor white.
_SHARES = np.asarray(noise(), dtype=np.float64) / 255
_GREY = _SHARES[..., 0]
_DARK = 0.4 * _GREY


def _read(content: bytes, folder: Path) -> tuple[npt.NDArray[np.float64], tuple[str, ...]]:
    photo = open_photo(write(folder, "a.tif", content), 32)
    return np.asarray(photo.image) / 255, photo.remarks


def _u16(shares: npt.NDArray[np.float64], largest: int) -> npt.NDArray[np.uint16]:
    return np.round(shares * largest).astype(np.uint16)


@pytest.mark.parametrize(
    ("pixels", "tags", "expected", "remark"),
    [
        (_u16(_GREY, 65535), {}, _GREY, None),
        (_u16(_DARK, 65535), {}, _DARK, None),
        (_u16(_DARK, 65535), {_MAX: short(int(0.4 * 65535))}, _DARK, None),  # the largest value in it
        (_u16(_GREY, 4095), {}, _GREY, "0 to 4095, by the largest of them"),
        (_u16(_DARK, 4095), {_MAX: short(4095)}, _DARK, "0 to 4095, as the file says"),
        (_u16(_GREY, 4095), {_MAX: short(4000)}, _GREY, "0 to 4095, as the file says"),
        (_u16(_GREY, 1023), {_MAX: short(1023)}, _GREY, "0 to 1023, as the file says"),
        (_u16(_GREY, 16383), {_FLOAT_MAX: short(16383)}, _GREY, "0 to 16383, as the file says"),
        (_u16(_GREY, 65535), {_MAX: short(255)}, _GREY, None),  # which is not so
        (_u16(_GREY, 65535), _WHITE_IS_ZERO, 1 - _GREY, None),
        (_u16(_SHARES, 65535), {}, _SHARES, ""),
        (_u16(_SHARES, 4095), {}, _SHARES, "0 to 4095, by the largest of them"),
        (_u16(0.4 * _SHARES, 16383), {_MAX: short(16383)}, 0.4 * _SHARES, "0 to 16383, as the file says"),
        (_GREY.astype(np.float32), {}, _GREY, None),
        ((1.2 * _GREY).astype(np.float32), {}, np.minimum(1.2 * _GREY, 1), None),
        ((255 * _GREY).astype(np.float32), {}, _GREY, "0 to 255, by the largest of them"),
        ((256 * _GREY).astype(np.float32), {}, np.minimum(_GREY * 256 / 255, 1), "0 to 255, by the largest of them"),
        ((65535 * _GREY).astype(np.float32), {}, _GREY, "0 to 65535, by the largest of them"),
        ((0.9 * _GREY).astype(np.float32), {_FLOAT_MAX: real(255)}, 0.9 * _GREY / 255, "0 to 255, as the file says"),
        ((255 * _DARK).astype(np.float32), {_FLOAT_MAX: real(255)}, _DARK, "0 to 255, as the file says"),
        (_DARK.astype(np.float32), {_FLOAT_MAX: real(1)}, _DARK, None),
        (_GREY.astype(np.float32), {_FLOAT_MAX: real(float("nan"))}, _GREY, None),
    ],
)  # fmt: skip
def test_values_are_scaled_by_what_the_file_says(
    pixels: npt.NDArray[Any], tags: _Tags, expected: npt.NDArray[np.float64], remark: str | None, tmp_path: Path
) -> None:
    found, remarks = _read(tiff(pixels, tags), tmp_path)
    if expected.ndim == 2:
        expected = np.dstack([expected] * 3)
    assert np.abs(found - expected).max() < 1.01 / 255
    # Colours of 16 bits are read as their upper bytes, as ever, without a remark.
    assert remarks == ((DEEP,) if remark is None else (DEEP, f"values taken as {remark}") if remark else ())


def test_12_bits_packed(tmp_path: Path) -> None:
    values = _u16(_GREY, 4095)
    first, second = values[:, ::2].astype(int), values[:, 1::2].astype(int)
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=-1).astype(np.uint8)
    content = tiff(packed.reshape(64, -1), {256: short(96)}, bits=12)
    found, remarks = _read(content, tmp_path)
    assert np.abs(found[..., 0] - _GREY).max() < 1.01 / 255
    assert remarks == (DEEP, "values taken as 0 to 4095, as the file says")


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate"])
def test_12_bits_in_compressed_and_turned_files(compression: str, tmp_path: Path) -> None:
    """Pillow writes no colours of 16 bits; the grey ones show that tags of every TIFF are looked at."""
    image = Image.fromarray(_u16(_GREY, 4095))
    content = saved(image, "TIFF", compression=compression, tiffinfo={_MAX: 4095, 274: 6})
    found, _ = _read(content, tmp_path)
    assert np.abs(np.rot90(found[..., 0]) - _GREY).max() < 1.01 / 255


def test_12_bits_in_colour_that_are_turned(tmp_path: Path) -> None:
    found, _ = _read(tiff(_u16(_SHARES, 4095), {274: short(6)}), tmp_path)
    assert np.abs(np.rot90(found) - _SHARES).max() < 1.01 / 255


def test_a_dark_png_stays_dark(tmp_path: Path) -> None:
    """A PNG uses all of its 16 bits; that is part of the format."""
    photo = open_photo(write(tmp_path, "a.png", saved(Image.fromarray(_u16(0.05 * _GREY, 65535)), "PNG")), 32)
    assert np.asarray(photo.image).max() <= 13
    assert photo.remarks == (DEEP,)


def test_values_that_are_no_numbers(tmp_path: Path) -> None:
    pixels = _GREY.astype(np.float32)
    pixels[3, 3] = np.inf
    with pytest.raises(UnreadablePhotoError, match="its values are no numbers"):
        open_photo(write(tmp_path, "a.tif", tiff(pixels)), 32)


def _matrix_profile(red: tuple[float, ...], green: tuple[float, ...], blue: tuple[float, ...], gamma: float) -> bytes:
    """An ICC profile of RGB by the XYZ (D50) of its colours, as AdobeRGB and Display P3 are."""

    def xyz(values: tuple[float, ...]) -> bytes:
        return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))

    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    name = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78) + bytes(1)
    tags = {
        b"desc": name, b"wtpt": xyz((0.9642, 1.0, 0.8249)), b"rXYZ": xyz(red), b"gXYZ": xyz(green), b"bXYZ": xyz(blue),
        b"rTRC": curve, b"gTRC": curve, b"bTRC": curve,
    }  # fmt: skip
    place = 128 + 4 + 12 * len(tags)
    table, data = struct.pack(">I", len(tags)), b""
    for tag, value in tags.items():
        table += tag + struct.pack(">II", place + len(data), len(value))
        data += value + bytes(-len(value) % 4)
    header = struct.pack(">I4sI4s4s4s", place + len(data), bytes(4), 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + table + data


ADOBE_RGB = _matrix_profile((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446), 2.2)
DISPLAY_P3 = _matrix_profile((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841), 2.2)
_CONVERTED = "colours brought to sRGB"


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP", "AVIF"])
@pytest.mark.parametrize(
    ("profile", "colour", "expected"),
    [
        # The same colour in sRGB, computed from the matrices of the colour spaces and the two curves.
        (ADOBE_RGB, (144, 190, 106), (120, 191, 100)),
        (DISPLAY_P3, (120, 190, 100), (95, 194, 87)),
    ],
    ids=["AdobeRGB", "Display P3"],
)
def test_colours_are_brought_to_srgb(
    kind: str, profile: bytes, colour: tuple[int, ...], expected: tuple[int, ...], tmp_path: Path
) -> None:
    image = Image.new("RGB", (96, 64), colour)
    photo = open_photo(write(tmp_path, "a", saved(image, kind, icc_profile=profile, quality=100)), 32)
    assert photo.remarks == (_CONVERTED,)
    assert np.abs(np.asarray(photo.image, dtype=int)[32, 48] - expected).max() <= 4


def test_a_profile_of_srgb_changes_nothing(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo = open_photo(write(tmp_path, "a.png", saved(noise(), "PNG", icc_profile=profile)), 32)
    np.testing.assert_array_equal(np.asarray(photo.image), np.asarray(noise()))
    assert photo.remarks == ()


def test_what_is_transparent_has_its_colours_brought_too(tmp_path: Path) -> None:
    image = Image.new("RGBA", (96, 64), (144, 190, 106, 255))
    image.putpixel((0, 0), (0, 0, 0, 0))
    photo = open_photo(write(tmp_path, "a.png", saved(image, "PNG", icc_profile=ADOBE_RGB)), 32)
    assert photo.remarks == (_CONVERTED, "transparent: put on white")
    pixels = np.asarray(photo.image, dtype=int)
    assert np.abs(pixels[32, 48] - (120, 191, 100)).max() <= 4
    assert (pixels[0, 0] == 255).all()


def test_deep_colours_and_a_palette_have_a_profile_too(tmp_path: Path) -> None:
    pixels = np.full((64, 96, 3), (144 * 257, 190 * 257, 106 * 257), np.uint16)
    deep = tiff(pixels, {34675: (7, len(ADOBE_RGB), ADOBE_RGB)})
    palette = saved(Image.new("RGB", (96, 64), (144, 190, 106)).quantize(4), "PNG", icc_profile=ADOBE_RGB)
    for content in (deep, palette):
        photo = open_photo(write(tmp_path, "a", content), 32)
        assert photo.remarks == (_CONVERTED,)
        assert np.abs(np.asarray(photo.image, dtype=int)[32, 48] - (120, 191, 100)).max() <= 4


@pytest.mark.parametrize("profile", [b"x", b"no profile" * 50, ADOBE_RGB[:200], ADOBE_RGB.replace(b"RGB ", b"RG@\xf1")])
def test_a_profile_that_is_none_changes_nothing(profile: bytes, tmp_path: Path) -> None:
    photo = open_photo(write(tmp_path, "a.jpg", saved(noise(), "JPEG", quality=95, icc_profile=profile)), 32)
    plain = open_photo(write(tmp_path, "b.jpg", saved(noise(), "JPEG", quality=95)), 32)
    np.testing.assert_array_equal(np.asarray(photo.image), np.asarray(plain.image))
    assert photo.remarks == (DAMAGED_METADATA,)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_profile_of_other_colours(mode: str, tmp_path: Path) -> None:
    """Grey pixels may have a profile of RGB; those of CMYK may not, and stay as they are."""
    image = Image.new("RGB", (96, 64), (90, 90, 90)).convert(mode)
    photo = open_photo(write(tmp_path, "a.jpg", saved(image, "JPEG", icc_profile=ADOBE_RGB)), 32)
    assert np.abs(np.asarray(photo.image, dtype=int)[32, 48] - 90).max() <= 4


def test_lab(tmp_path: Path) -> None:
    lab = ImageCms.profileToProfile(
        noise(), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    photo = open_photo(write(tmp_path, "a.tif", saved(lab, "TIFF")), 32)
    assert np.abs(np.asarray(photo.image, dtype=int) - np.asarray(noise())).mean() < 3
