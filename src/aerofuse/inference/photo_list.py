"""Which photo files are meant: by files, folders, patterns, or a list."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from aerofuse.data.photo_files import IMAGE_SUFFIXES, photos_below

LIST = "-"


@dataclass(frozen=True)
class PhotoList:
    """Files in the order in which they were named, and what led to none, with the reason."""

    files: tuple[Path, ...]
    empty: tuple[tuple[str, str], ...]


def list_photos(named: Sequence[str], lines: Iterable[str] = ()) -> PhotoList:
    """The photos that `named` stands for; a `-` among them for `lines`, a name in each.

    A folder stands for all photos in it and below it, a pattern such as `2024/**/*.jpg` for what it matches, both in
    the order of their names. A file is taken whatever its suffix, and also where there is none: reading it says so.
    """
    names: list[str] = []
    for name in named:
        names += [line.rstrip("\r\n") for line in lines if line.strip()] if name == LIST else [name]
    files: list[Path] = []
    empty: list[tuple[str, str]] = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            found, reason = sorted(photos_below(path)), f"no photo in this folder ({', '.join(sorted(IMAGE_SUFFIXES))})"
        elif glob.has_magic(name) and not path.exists():
            matches = (Path(match) for match in glob.glob(name, recursive=True))  # noqa: PTH207 (Path.glob takes no absolute one)
            found, reason = sorted(match for match in matches if match.is_file()), "no file matches this pattern"
        else:
            found, reason = [path], ""
        files += found
        if not found:
            empty.append((name, reason))
    return PhotoList(tuple(files), tuple(empty))
