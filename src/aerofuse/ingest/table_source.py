"""Listing the photos that a label table names, in one folder, or in a folder for each split."""

from __future__ import annotations

import logging
import os
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

import pandas as pd

from aerofuse.data.image_file import find_photos
from aerofuse.ingest.label_table import read_label_table
from aerofuse.ingest.listing import Listing, refuse_repeated_files
from aerofuse.ingest.params import Paths, Roots
from aerofuse.ingest.remote import PhotoLocation, RemoteFile, find_remote_photos

logger = logging.getLogger(__name__)


def list_table(root: Roots, labels: Paths) -> Listing:
    """List the photos that the table, or each split's table, names, in files below the folder, or the split's folder.

    With a folder for each split, the name of a photo begins with its split, for several folders may have one name.
    Raises `FileNotFoundError`, or `ValueError` for a table that cannot be used.
    """
    table = read_label_table(labels)
    frame, places = table.frame.copy(), table.places
    if isinstance(root, Mapping):
        folders = {f"{split}/": _Folder(path, f"data.root.{split}") for split, path in root.items()}
        _check_folders(root, frame, places)
        prefixes = frame["split"] + "/"
    else:
        folders = {"": _Folder(root, "data.root")}
        prefixes = pd.Series("", index=frame.index)
    # A file that is missing is left out with its reason later, like any photo that cannot be read.
    paths = [folders[key].place(name) for key, name in zip(prefixes, frame["filename"], strict=True)]
    frame["path"] = pd.Series(paths, dtype=object)
    refuse_repeated_files(frame, places)
    for key, name, path, place in zip(prefixes, frame["filename"], frame["path"], places, strict=True):
        folders[key].refuse_link_outside(path, f"{place}, filename {name!r}")
    frame["filename"] = prefixes + frame["filename"]
    listed = set(frame["path"])
    unlisted = sorted(key + name for key, folder in folders.items() for name in folder.others(listed))
    return Listing(frame, places, table.types, table.airlines, tuple(unlisted))


def _check_folders(root: Mapping[str, Path | str], frame: pd.DataFrame, places: pd.Series) -> None:
    """Check that every photo's split has a folder."""
    if "split" not in frame:
        raise ValueError(
            "data.root has a folder for each split, and the table does not say which split a photo is in; "
            "give it a column `split`, or data.labels a table for each split"
        )
    for split, photos in frame[~frame["split"].isin(list(root))].groupby("split"):
        raise ValueError(
            f"data.root has no folder for {split}, which {len(photos)} photos are in, such as that of "
            f"{places[photos.index[0]]}; name it, or write one folder for all splits"
        )


class _Folder:
    """A folder with the user's photos, here or in an object store, which the parameter `parameter` names."""

    def __init__(self, root: Path | str, parameter: str) -> None:
        self._root, self._parameter = root, parameter
        self._resolved = root.resolve() if isinstance(root, Path) else None
        self._found: Mapping[str, PhotoLocation] = (
            _photos_here(root, parameter) if isinstance(root, Path) else _photos_in_store(root, parameter)
        )
        # Systems compose letters in their own ways, so a name may stand in the table otherwise than on the disk.
        self._composed = {unicodedata.normalize("NFC", name): path for name, path in self._found.items()}

    def place(self, name: str) -> PhotoLocation:
        """Return the file of a photo, which may be missing."""
        missing = self._root / name if isinstance(self._root, Path) else RemoteFile(f"{self._root}/{name}")
        return self._found.get(name) or self._composed.get(unicodedata.normalize("NFC", name), missing)

    def refuse_link_outside(self, path: PhotoLocation, place: str) -> None:
        """Raise `ValueError` where the file is a link that leaves the folder, unless DVC made it."""
        if not isinstance(path, Path) or self._resolved is None:
            return
        target = Path(os.path.realpath(path))  # which takes a link that leads to itself
        allowed = (self._resolved, *(() if target.is_relative_to(self._resolved) else _dvc_caches(self._resolved)))
        if not any(map(target.is_relative_to, allowed)):
            raise ValueError(f"{place}: a link that leaves {self._parameter} ({self._root}); copy the photo into it")

    def others(self, listed: set[PhotoLocation]) -> Iterator[str]:
        """Yield the names of the photos that are not listed."""
        for name, path in self._found.items():
            if path not in listed:
                # A name whose bytes are not UTF-8 could not be written to the report.
                yield os.fsencode(name).decode("utf-8", "backslashreplace")


def _photos_here(root: Path, parameter: str) -> dict[str, PhotoLocation]:
    """The photos in and below a folder, by name. Raises `FileNotFoundError` where there is none, or nothing in it."""
    if not root.is_dir():
        kind = "a file, and must be a folder" if root.exists() else "no such folder"
        raise FileNotFoundError(f"{parameter} is {str(root)!r}: {kind}; name the folder with your photos")
    below = find_photos(root)
    for folder, problem in below.problems:
        logger.warning("%s: %s", folder, problem)
    if not any(path.is_file() for path in root.rglob("*")) and not below.problems:
        raise FileNotFoundError(f"{parameter} is {str(root)!r}: an empty folder; name the folder with your photos")
    return {str(path.relative_to(root)): path for path in below.photos}


def _photos_in_store(root: str, parameter: str) -> Mapping[str, PhotoLocation]:
    """The photos below an address, by name. Raises `FileNotFoundError` where there is none."""
    try:
        found = find_remote_photos(root)
    except FileNotFoundError:
        found = {}
    if not found:
        raise FileNotFoundError(f"{parameter} is {root!r}: no photos are there; name the folder with your photos")
    return found


@cache
def _dvc_caches(root: Path) -> tuple[Path, ...]:
    """The caches to which DVC links files, of the repository here and of the one that holds `root`."""
    # Imported late: only links that leave the folder ask for it.
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    caches = []
    for place in dict.fromkeys((Path.cwd(), root)):
        with suppress(DvcException), Repo(str(place)) as repo:
            caches += [Path(cache.path).resolve() for cache in (repo.cache.local, repo.cache.legacy)]
    return tuple(caches)
