"""Small image files with faults and oddities that cameras, programs and disks make."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The bytes of an image file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(width: int = 96, height: int = 64) -> Image.Image:
    """Coloured noise, smooth enough for lossy formats."""
    colours = np.random.default_rng(0).integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC)


def damaged_avif() -> bytes:
    """An AVIF that opens, and whose decoder raises RuntimeError: its last tenth is zeros.

    Written by two threads whatever the machine has: what one thread writes, the decoder takes with zeros in it.
    """
    content = bytearray(saved(noise(320, 240), "AVIF", quality=90, max_threads=2))
    start = 9 * len(content) // 10
    content[start:] = bytes(len(content) - start)
    return bytes(content)


def broken_second_page() -> bytes:
    """A TIFF whose second page has an entry for its width with a text in it: Pillow raises TypeError."""
    first = bytearray(saved(noise(), "TIFF"))
    (directory,) = struct.unpack_from("<I", first, 4)
    (entries,) = struct.unpack_from("<H", first, directory)
    struct.pack_into("<I", first, directory + 2 + 12 * entries, len(first))
    return bytes(first) + struct.pack("<HHHI4sI", 1, 256, 2, 3, b"no\0\0", 0)


def png_with(*chunks: tuple[bytes, bytes], checksum_right: bool = True) -> bytes:
    """A PNG with some chunks of metadata before its pixels."""
    content = saved(noise(), "PNG")
    inserted = b"".join(
        struct.pack(">I", len(data))
        + kind
        + data
        + struct.pack(">I", zlib.crc32(kind + data) ^ (0 if checksum_right else 1))
        for kind, data in chunks
    )
    return content[:33] + inserted + content[33:]  # behind IHDR


def jpeg_with(marker: int, data: bytes) -> bytes:
    """A JPEG with one more segment in front."""
    content = saved(noise(), "JPEG", quality=95)
    return content[:2] + bytes((0xFF, marker)) + (len(data) + 2).to_bytes(2) + data + content[2:]


def tiff(
    pixels: npt.NDArray[Any], tags: Mapping[int, tuple[int, int, bytes]] | None = None, *, bits: int | None = None
) -> bytes:
    """An uncompressed TIFF of grey `[H, W]` or colours `[H, W, 3]`, with more tags, each as type, count and value.

    `bits` is written as the bits per sample in place of the pixels' own.
    """
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    depth = bits or pixels.dtype.itemsize * 8
    data = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    sample_format = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    entries: dict[int, tuple[int, int, bytes]] = {
        256: (4, 1, struct.pack("<I", width)), 257: (4, 1, struct.pack("<I", height)),
        258: (3, channels, struct.pack(f"<{channels}H", *[depth] * channels)), 259: (3, 1, struct.pack("<H", 1)),
        262: (3, 1, struct.pack("<H", 2 if channels == 3 else 1)), 273: (4, 1, b""),
        277: (3, 1, struct.pack("<H", channels)), 278: (4, 1, struct.pack("<I", height)),
        279: (4, 1, struct.pack("<I", len(data))),
        339: (3, channels, struct.pack(f"<{channels}H", *[sample_format] * channels)),
        **(tags or {}),
    }  # fmt: skip
    behind = 8 + 2 + 12 * len(entries) + 4
    extra = b"".join(value for _, _, value in entries.values() if len(value) > 4)
    entries[273] = (4, 1, struct.pack("<I", behind + len(extra)))
    directory, place = struct.pack("<H", len(entries)), behind
    for tag, (kind, count, value) in sorted(entries.items()):
        directory += struct.pack("<HHI", tag, kind, count)
        directory += value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", place)
        place += len(value) if len(value) > 4 else 0
    values = b"".join(value for _, (_, _, value) in sorted(entries.items()) if len(value) > 4)
    return b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + values + data


def short(value: int) -> tuple[int, int, bytes]:
    """A whole number as the value of a tag."""
    return 3, 1, struct.pack("<H", value)


def real(value: float) -> tuple[int, int, bytes]:
    """A float as the value of a tag."""
    return 11, 1, struct.pack("<f", value)


def mpo() -> bytes:
    """As cameras write it: a JPEG with a second, smaller picture."""
    return saved(noise(), "MPO", save_all=True, append_images=[noise(48, 32)])


def heic_start() -> bytes:
    """The first box of a HEIC file, and nothing behind it."""
    return struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(400)


def write(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def raw_with_thumbnail() -> bytes:
    """As DNG and NEF have it: the first picture is a thumbnail."""
    return saved(noise(), "TIFF", tiffinfo={254: 1})


def shut_folder(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Take the permission from a folder, also for root."""
    scan: Callable[..., Any] = os.scandir

    def refuse(path: Any = ".") -> Any:
        if Path(os.fsdecode(path)) == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
