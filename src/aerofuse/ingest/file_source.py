"""Photos in files, with labels from a listing such as the label table."""

from __future__ import annotations

import logging
import os
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from aerofuse.data.image_file import find_photos
from aerofuse.data.photo import Box, Photo
from aerofuse.data.store import LABEL_COLUMNS
from aerofuse.ingest.duplicates import joined_groups, near_duplicates
from aerofuse.ingest.intake import Intake, IntakeSettings, PhotoFile
from aerofuse.ingest.label_table import BOX_COLUMNS, read_label_table
from aerofuse.ingest.splits import SPLITS

logger = logging.getLogger(__name__)

_SHOWN = 10


@dataclass(frozen=True)
class Listing:
    """Photo files to read, and their labels.

    `table` has a row per photo: `path`, `filename`, the labels, `row` (its row or line in the list), and optionally
    `split`, a box (`xmin, ymin, xmax, ymax`, in pixels from the upper left corner) and columns of the user's own.
    `unlisted` are photo files below the root that the table does not name. Class lists are in the order of their ids.
    """

    table: pd.DataFrame
    types: tuple[str, ...]
    airlines: tuple[str, ...]
    unlisted: tuple[str, ...] = ()


def list_table(root: Path, labels: Path) -> Listing:
    """List the photos that the table `labels` names, in files below the folder `root`.

    Raises `FileNotFoundError`, or `ValueError` for a table that cannot be used.
    """
    if not root.is_dir():
        kind = "a file, and must be a folder" if root.exists() else "no such folder"
        raise FileNotFoundError(f"data.root is {str(root)!r}: {kind}; name the folder with your photos")
    table = read_label_table(labels)
    below = find_photos(root)
    for folder, problem in below.problems:
        logger.warning("%s: %s", folder, problem)
    found = {str(path.relative_to(root)): path for path in below.photos}
    # Systems compose letters in their own ways, so a name may stand in the table otherwise than on the disk.
    composed = {unicodedata.normalize("NFC", name): path for name, path in found.items()}
    frame = table.frame.copy()
    # A file that is missing is left out with its reason later, like any photo that cannot be read.

    def place(name: str) -> Path:
        return found.get(name) or composed.get(unicodedata.normalize("NFC", name), root / name)

    frame["path"] = frame["filename"].map(place)
    for path, rows in frame[frame["path"].duplicated(keep=False)].groupby("path", sort=False)["row"]:
        raise ValueError(f"{labels}: rows {', '.join(map(str, rows))} name one file, {path}; keep one row")
    resolved = root.resolve()
    for row, name, path in frame[["row", "filename", "path"]].itertuples(index=False):
        target = Path(os.path.realpath(path))  # which takes a link that leads to itself
        if not target.is_relative_to(resolved) and not any(map(target.is_relative_to, _dvc_caches(resolved))):
            raise ValueError(
                f"{labels}, row {row}, filename {name!r}: a link that leaves data.root ({root}); copy the photo into it"
            )
    listed = set(frame["path"])
    # A name whose bytes are not UTF-8 could not be written to the report.
    unlisted = [
        os.fsencode(name).decode("utf-8", "backslashreplace") for name, path in found.items() if path not in listed
    ]
    return Listing(frame, table.types, table.airlines, tuple(sorted(unlisted)))


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


class FileSource:
    """A source of the photos of a listing. Photos that cannot be used are left out, up to a share of all."""

    def __init__(
        self, listing: Listing, settings: IntakeSettings, folder: Path, *, max_bad_fraction: float, duplicate_bits: int
    ) -> None:
        """Take the photos in; `folder` keeps them for the next run.

        Raises `ValueError` where too many photos cannot be used, or where a crop is wanted and no photo has a box.
        """
        self._settings = settings
        table = listing.table
        files = [PhotoFile(path, box) for path, box in zip(table["path"], _boxes(table), strict=True)]
        self._intake = Intake(files, settings, folder)
        facts = self._intake.facts
        usable = facts["problem"].isna().to_numpy()
        self.dropped = pd.DataFrame({"filename": table["filename"], "reason": facts["problem"]})[~usable]
        _refuse_too_many(self.dropped, table, max_bad_fraction)
        if settings.crop_padding is not None and not any(file.box for file in files):
            raise ValueError(
                "data.crop.to_box is true, and no photo has a box; give xmin, ymin, xmax and ymax, or set it to false"
            )
        self._numbers = np.flatnonzero(usable).tolist()
        known = facts[usable].reset_index(drop=True)
        self._index: pd.DataFrame = table[usable].reset_index(drop=True).drop(columns="path")
        index = self._index
        index[["width", "height", "remarks"]] = known[["width", "height", "remarks"]]
        _refuse_unlearned(index)
        index["near_duplicates"] = near_duplicates(known["fingerprint"].tolist(), duplicate_bits)
        index["group"] = joined_groups(index["registration"], index["near_duplicates"])
        _warn_of_lost_classes(listing, index)
        self.types, self.airlines, self.unlisted = listing.types, listing.airlines, listing.unlisted
        if self.unlisted:
            examples = ", ".join(self.unlisted[:3])
            logger.warning("%d image files are not in the table, such as %s", len(self.unlisted), examples)

    def index(self) -> pd.DataFrame:
        """Return one row per usable photo, in the order of the listing."""
        return self._index.copy()

    def photos(self, rows: Sequence[int], image_size_px: int, *, for_training: bool) -> Iterator[Photo]:
        """Read the photos at these rows of the index; `for_training`, cropped to boxes where the settings say so."""
        if image_size_px != self._settings.side_px:
            raise ValueError(f"the photos were taken in at {self._settings.side_px} px, not {image_size_px}")
        for row in rows:
            labels = self._index.iloc[row]
            image = self._intake.image(self._numbers[row], cropped=for_training)
            yield Photo(image, **{name: labels[name] for name in LABEL_COLUMNS})


def _boxes(table: pd.DataFrame) -> list[Box | None]:
    if "xmin" not in table:
        return [None] * len(table)
    edges = table[list(BOX_COLUMNS)].itertuples(index=False)
    return [None if edge[0] is None or pd.isna(edge[0]) else Box(*map(float, edge)) for edge in edges]


def _warn_of_lost_classes(listing: Listing, index: pd.DataFrame) -> None:
    """Name the classes without a usable photo. They keep their ids, and no model learns them."""
    for names, column in ((listing.types, "typename"), (listing.airlines, "airlinename")):
        lost = set(names) - set(index[column].dropna())
        if lost:
            logger.warning("no usable photo is left of: %s", ", ".join(sorted(lost)))


def _refuse_unlearned(index: pd.DataFrame) -> None:
    """Check splits that came with the data; splits made here have every type."""
    if "split" not in index:
        return
    learned = set(index.loc[index["split"] == SPLITS[0], "typename"])
    for name, photos in index[~index["typename"].isin(learned)].groupby("typename"):
        first = photos.iloc[0]
        raise ValueError(
            f"type {name!r}: {len(photos)} usable photos in {', '.join(sorted(set(photos['split'])))}, such as "
            f"{first['filename']}, and none in {SPLITS[0]}, so that no model can learn it; mend its training photos, "
            "or take the type out of all lists"
        )


def _refuse_too_many(dropped: pd.DataFrame, table: pd.DataFrame, max_bad_fraction: float) -> None:
    if dropped.empty:
        return
    count, share = len(table), len(dropped) / len(table)
    if share <= max_bad_fraction and len(dropped) < count:
        message = "%d of %d photos cannot be used and are left out; the data report lists them"
        logger.warning(message, len(dropped), count)
        return
    # A row of the table, or a line of the list of the photo's split.
    lists = table["split"] + ", line" if "split" in table else pd.Series("row", index=table.index)
    lines = [
        f"  {lists[number]} {table['row'][number]}, {name}: {reason}\n"
        for number, name, reason in dropped.head(_SHOWN).itertuples()
    ]
    more = f"  and {len(dropped) - _SHOWN} more\n" if len(dropped) > _SHOWN else ""
    raise ValueError(
        f"{len(dropped)} of {count} photos cannot be used ({share:.1%}), more than data.max_bad_fraction "
        f"({max_bad_fraction:.1%}) allows:\n{''.join(lines)}{more}mend them, take them out of the table, or allow more"
    )
