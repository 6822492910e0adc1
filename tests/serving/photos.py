"""Photos as they come to a server, good and bad."""

from __future__ import annotations

import base64
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def write_photo(path: Path, seed: int = 0) -> Path:
    """A JPEG of coloured noise, 160 x 120."""
    colours = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(colours).resize((160, 120)).save(path, "JPEG")
    return path


def as_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def png_bomb(side_px: int) -> bytes:
    """A PNG of some 100 bytes whose header promises `side_px` squared pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", side_px, side_px, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
