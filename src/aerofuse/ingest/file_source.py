"""Photos in files, with labels from a listing such as the label table."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from aerofuse.data.photo import Box, Photo
from aerofuse.data.store import LABEL_COLUMNS
from aerofuse.ingest.duplicates import joined_groups, near_duplicates
from aerofuse.ingest.given_splits import check_given_split
from aerofuse.ingest.intake import Engine, Intake, IntakeSettings, PhotoFile, take_in_here
from aerofuse.ingest.label_table import BOX_COLUMNS
from aerofuse.ingest.listing import Listing

logger = logging.getLogger(__name__)

_SHOWN = 10


class FileSource:
    """A source of the photos of a listing. Photos that cannot be used are left out, up to a share of all."""

    def __init__(
        self,
        listing: Listing,
        settings: IntakeSettings,
        folder: Path,
        *,
        max_bad_fraction: float,
        duplicate_bits: int,
        engine: Engine = take_in_here,
    ) -> None:
        """Take the photos in; `folder` keeps them for the next run.

        Raises `ValueError` where too many photos cannot be used, or where a crop is wanted and no photo has a box.
        """
        self._settings = settings
        self.fit = settings.fit
        table = listing.table
        files = [PhotoFile(path, box) for path, box in zip(table["path"], _boxes(table), strict=True)]
        self._intake = Intake(files, settings, folder, engine)
        facts = self._intake.facts
        usable = facts["problem"].isna().to_numpy()
        self.dropped = pd.DataFrame({"filename": table["filename"], "reason": facts["problem"]})[~usable]
        _refuse_too_many(self.dropped, listing, max_bad_fraction)
        if settings.crop_padding is not None and not any(file.box for file in files):
            raise ValueError(
                "data.crop.to_box is true, and no photo has a box; give xmin, ymin, xmax and ymax, or set it to false"
            )
        self._numbers = np.flatnonzero(usable).tolist()
        known = facts[usable].reset_index(drop=True)
        self._index: pd.DataFrame = table[usable].reset_index(drop=True).drop(columns="path")
        index = self._index
        index[["width", "height", "remarks"]] = known[["width", "height", "remarks"]]
        if "split" in index:  # photos that cannot be read may have been a type's only ones for training
            check_given_split(index, listing.places[usable].reset_index(drop=True))
        index["near_duplicates"] = near_duplicates(known["fingerprint"].tolist(), duplicate_bits)
        index["group"] = joined_groups(index["registration"], index["near_duplicates"])
        _warn_of_lost_classes(listing, index)
        self.types, self.airlines, self.unlisted = listing.types, listing.airlines, listing.unlisted
        self.left_out_types = listing.left_out_types
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


def _refuse_too_many(dropped: pd.DataFrame, listing: Listing, max_bad_fraction: float) -> None:
    if dropped.empty:
        return
    count, share = len(listing.table), len(dropped) / len(listing.table)
    if share <= max_bad_fraction and len(dropped) < count:
        message = "%d of %d photos cannot be used and are left out; the data report lists them"
        logger.warning(message, len(dropped), count)
        return
    lines = [
        f"  {listing.places[number]}, {name}: {reason}\n" for number, name, reason in dropped.head(_SHOWN).itertuples()
    ]
    more = f"  and {len(dropped) - _SHOWN} more\n" if len(dropped) > _SHOWN else ""
    raise ValueError(
        f"{len(dropped)} of {count} photos cannot be used ({share:.1%}), more than data.max_bad_fraction "
        f"({max_bad_fraction:.1%}) allows:\n{''.join(lines)}{more}mend them, take them out of the table, or allow more"
    )
