"""Pictures inside the page."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Picture:
    """An image inside the page, with what it shows in words."""

    uri: str
    alt: str
    title: str


def data_uri(path: Path) -> str:
    """A PNG or JPEG file as an address that holds it. Raises `FileNotFoundError`."""
    kind = {".png": "image/png", ".jpg": "image/jpeg"}[path.suffix]
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
