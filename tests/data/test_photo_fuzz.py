"""Damaged files of every format end in a photo or in a reason, and in nothing else.

Takes `AEROFUSE_FUZZ_SECONDS`, 60 by default: what the CI's budget allows. After a change to the reader, 300 are right.
"""

from __future__ import annotations

import os
import random
import struct
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aerofuse.data.image_file import UnreadablePhotoError, readable_formats
from aerofuse.data.photo import fit_square, open_photo
from aerofuse.serving.limits import Limits, read_content
from tests.data.odd_files import (
    damaged_avif,
    heic_start,
    jpeg_with,
    mpo,
    noise,
    png_with,
    raw_with_thumbnail,
    real,
    saved,
    short,
    tiff,
)
from tests.data.test_colours import ADOBE_RGB

_MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16", "F", "LAB")
# Of the formats that Pillow does not write, how a file starts; random bytes follow.
_STARTS = {
    "CUR": b"\0\0\2\0\1\0\x20\x20\0\0\0\0\0\0\x80\0\0\0\x16\0\0\0",
    "DCX": b"\xb1\x68\xde\x3a\x08\0\0\0\0\0\0\0\x0a\5\1\x08\0\0\0\0\x60\0\x40\0",
    "FITS": b"".join(
        line.ljust(80)
        for line in (
            b"SIMPLE  =                    T",
            b"BITPIX  =                    8",
            b"NAXIS   =                    2",
            b"NAXIS1  =                   32",
            b"NAXIS2  =                   32",
            b"END",
        )
    ).ljust(2880),
    "FLI": struct.pack("<I6H", 5000, 0xAF12, 2, 32, 32, 8, 3).ljust(128, b"\0") + struct.pack("<IHH", 900, 0xF1FA, 1),
    "FTEX": b"FTEX" + struct.pack("<IIIIIII", 1, 32, 32, 1, 1, 1, 48),
    "GBR": struct.pack(">IIIII", 28, 2, 32, 32, 4) + b"GIMP" + struct.pack(">I", 10),
    "IMT": b"width 32\nheight 32\n\x0c",
    "IPTC": b"\x1c\3\x3c\0\2\1\1\x1c\3\x14\0\1\x20\x1c\3\x1e\0\1\x20\x1c\x08\x0a\4\0",
    "MCIDAS": struct.pack(">64I", 0, 4, *[0] * 6, 32, 32, 1, 0, 0, 1, *[0] * 19, 256, *[0] * 30),
    "PCD": bytes(2048) + b"PCD_" + bytes(1500),
    "PIXAR": b"\x80\xe8\0\0" + bytes(412) + struct.pack("<HH", 32, 32) + bytes(4) + struct.pack("<HH", 14, 2),
    "PSD": b"8BPS\0\x01" + bytes(6) + struct.pack(">HIIHH", 3, 32, 32, 8, 3) + bytes(12) + struct.pack(">H", 0),
    "SUN": struct.pack(">8I", 0x59A66A95, 32, 32, 24, 3072, 1, 0, 0),
    "XPM": b'/* XPM */\nstatic char *a[] = {\n"32 32 2 1",\n"a c #ff0000",\n"b c #00ff00",\n"' + b"ab" * 16 + b'",\n',
}  # fmt: skip


def _valid() -> Iterator[tuple[str, bytes]]:
    """Small files by format and mode, with metadata where the format has it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "a camera"
    generator = random.Random(0)
    for name in sorted(set(readable_formats()) | {"MPO"}):
        for mode in _MODES:
            try:
                image = noise(32, 32).convert(mode if mode != "I;16" else "I").convert(mode)
            except ValueError:
                image = Image.new(mode, (32, 32))
            for options in ({"exif": exif, "icc_profile": ADOBE_RGB}, {}):
                if name in Image.SAVE:
                    try:
                        yield f"{name} {mode} {len(options)}", saved(image, name, **options)
                    except (OSError, ValueError, KeyError, TypeError, SystemError):  # the format has no such mode
                        continue
        if name not in Image.SAVE:
            yield name, _STARTS[name] + generator.randbytes(4000)
    frames = [noise(32, 32).rotate(angle) for angle in (90, 180)]
    for name in ("GIF", "PNG", "WEBP", "AVIF", "TIFF"):
        yield f"{name} of frames", saved(noise(32, 32), name, save_all=True, append_images=frames)
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits", "group4"):
        image = noise(32, 32).convert("1") if compression == "group4" else noise(32, 32)
        yield f"TIFF {compression}", saved(image, "TIFF", compression=compression)
    yield "JPEG progressive", saved(noise(32, 32), "JPEG", progressive=True)
    deep = np.asarray(noise(32, 32)).astype(np.uint16) * 16
    yield "TIFF 12 bits", tiff(deep, {281: short(4095), 34675: (7, len(ADOBE_RGB), ADOBE_RGB)})
    yield "TIFF floats", tiff(deep[..., 0].astype(np.float32), {341: real(4095)})
    yield from {
        "avif": damaged_avif(), "heic": heic_start(), "mpo": mpo(), "raw": raw_with_thumbnail(),
        "exif": jpeg_with(0xE1, b"Exif\0\0" + exif.tobytes()[6:]), "text": png_with((b"tEXt", b"a\0b")),
    }.items()  # fmt: skip


def _damaged(content: bytes, generator: random.Random) -> bytes:
    """Bytes changed, most of them near the start where headers and tags are, or cut, doubled or taken out."""
    changed = bytearray(content)
    for _ in range(generator.choice((1, 1, 2, 4, 16))):
        end = generator.choice((min(64, len(changed)), min(512, len(changed)), len(changed)))
        place = generator.randrange(end) if end else 0
        kind = generator.randrange(6)
        if kind == 0:
            changed[place : place + 1] = bytes((generator.randrange(256),))
        elif kind == 1 and changed:
            changed[min(place, len(changed) - 1)] ^= 1 << generator.randrange(8)
        elif kind == 2:
            number = generator.choice((0, 1, 255, 65535, 2**31 - 1, 2**31, 2**32 - 1))
            changed[place : place + 4] = number.to_bytes(4, generator.choice(("big", "little")))
        elif kind == 3:
            del changed[generator.randrange(len(changed) + 1) :]
        elif kind == 4:
            del changed[place : place + generator.randrange(16)]
        else:
            changed[place:place] = changed[place : place + generator.randrange(64)]
    return bytes(changed)


def _photo(path: Path, banner_px: int) -> None:
    assert fit_square(open_photo(path, 32, banner_px=banner_px).image, 32, "letterbox").shape == (32, 32, 3)


def _problem(read: Callable[[], object]) -> str | None:
    """What is wrong with how a reading ends; `None` for a result, or a reason that a decoder gave or that was meant."""
    try:
        read()
    except UnreadablePhotoError as error:
        cause: BaseException = error
        while cause.__context__ is not None:
            cause = cause.__context__
        last = traceback.extract_tb(cause.__traceback__)[-1]
        is_meant = isinstance(cause, UnreadablePhotoError | OSError) or "aerofuse" not in Path(last.filename).parts
        return None if is_meant and "\n" not in str(error) else f"{last}: {cause!r}"
    except Exception as error:
        return repr(error)
    return None


def test_every_format_has_a_file() -> None:
    assert {name.split()[0] for name, _ in _valid()} >= set(readable_formats()) - {"HEIF"}


@pytest.mark.slow
def test_damaged_files_end_in_a_photo_or_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutates small valid files of every format for `AEROFUSE_FUZZ_SECONDS` (60 by default)."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500_000)  # so that no changed width takes seconds
    files = list(_valid())
    end = time.monotonic() + float(os.environ.get("AEROFUSE_FUZZ_SECONDS", "60"))
    path, seed = tmp_path / "photo", 0
    while time.monotonic() < end:
        generator = random.Random(seed)
        name, content = generator.choice(files)
        content = _damaged(content, generator)
        path.write_bytes(content)
        start = time.monotonic()
        problems = {
            "file": _problem(partial(_photo, path, seed % 4)),
            "request": _problem(partial(read_content, content, Limits())),
        }
        assert not any(problems.values()), (name, seed, problems)
        assert time.monotonic() - start < 20, (name, seed)
        seed += 1
    assert seed > 100
