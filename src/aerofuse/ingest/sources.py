"""Sources of photos: what every source offers, the one that `data.source` names, and the built-in one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import pandas as pd

from aerofuse.data.photo import Fit, Photo
from aerofuse.ingest.fgvc_source import BANNER_PX, list_fgvc
from aerofuse.ingest.file_source import FileSource
from aerofuse.ingest.given_splits import check_given_split
from aerofuse.ingest.intake import IntakeSettings, take_in_here
from aerofuse.ingest.listing import Listing, choose_types
from aerofuse.ingest.params import DataParams, as_paths, as_roots
from aerofuse.ingest.ray_engine import take_in_on_ray
from aerofuse.ingest.table_source import list_table
from aerofuse.synthetic.fleet import built_in_fleet
from aerofuse.synthetic.params import SyntheticParams
from aerofuse.synthetic.photos import draw_photos, photo_airframe, photo_filename


class Source(Protocol):
    """Photos that are listed before they are read, so that they can be split first and memory stays bounded.

    `types` and `airlines` are the class lists. `dropped` lists files that cannot be used, with columns `filename` and
    `reason`. `unlisted` are files without labels, `left_out_types` types that were not chosen, each with its number of
    photos. `fit` says how photos become square.
    """

    types: tuple[str, ...]
    airlines: tuple[str, ...]
    dropped: pd.DataFrame
    unlisted: tuple[str, ...]
    left_out_types: Mapping[str, int]
    fit: Fit

    def index(self) -> pd.DataFrame:
        """Return one row per photo: `filename`, `typename`, `airlinename`, `registration`; what is missing is `None`.

        Photos with the same `group` must stay in one split. A source with a split of its own has a column `split`.
        """
        ...

    def photos(self, rows: Sequence[int], image_size_px: int, *, for_training: bool) -> Iterator[Photo]:
        """Read the photos at these rows of the index, in this order, square at `image_size_px`."""
        ...


def create_source(params: DataParams, image_size_px: int, work: Path) -> Source:
    """Create the source and take its photos in; `work` keeps what the next run can use again.

    Raises `FileNotFoundError` or `ValueError` for photos or labels that cannot be used, `ConnectionError` for an object
    store or a Ray cluster.
    """
    if params.source == "synthetic":
        return SyntheticSource(params.synthetic, params.split.seed)
    if params.source == "table":
        listing, banner_px = list_table(as_roots(params.root), as_paths(params.labels)), 0
    else:
        assert isinstance(params.root, str)  # DataParams refuses the rest
        listing, banner_px = list_fgvc(Path(params.root), params.fgvc_level, work / "extracted"), BANNER_PX
    listing = choose_types(listing, params.only_types, params.min_photos)
    if "split" in listing.table:  # before any photo is read
        check_given_split(listing.table, listing.places)
    if params.fit == "crop":
        _refuse_false_labels(listing)
    padding = params.crop.padding if params.crop.to_box else None
    settings = IntakeSettings(image_size_px, banner_px, padding, params.fit)
    return FileSource(
        listing,
        settings,
        work / "photos",
        max_bad_fraction=params.max_bad_fraction,
        duplicate_bits=params.duplicate_bits,
        engine=take_in_on_ray if params.engine == "ray" else take_in_here,
    )


def _refuse_false_labels(listing: Listing) -> None:
    """A crop may hide a part of the aircraft, or leave a part away that was hidden."""
    labelled = listing.table[["clarity", "block"]].notna().any(axis=1)
    if labelled.any():
        raise ValueError(
            f"data.fit is crop, and {labelled.sum()} photos have a label of clarity or block, such as that of "
            f"{listing.places[labelled].iloc[0]}; a crop could make these labels false: set data.fit to letterbox or "
            "stretch, or take the columns clarity and block out of the table"
        )


class SyntheticSource:
    """The built-in data: ten airliners in the liveries of twelve invented airlines. Every label is known."""

    def __init__(self, config: SyntheticParams, seed: int) -> None:
        self._config, self._seed = config, seed
        self._fleet = built_in_fleet(config.num_airframes, seed)
        index = self.index()
        self.types = tuple(sorted(index["typename"].unique()))
        self.airlines = tuple(sorted(index["airlinename"].unique()))
        self.dropped = pd.DataFrame(columns=["filename", "reason"])
        self.unlisted: tuple[str, ...] = ()
        self.left_out_types: Mapping[str, int] = {}
        self.fit: Fit = "letterbox"

    def index(self) -> pd.DataFrame:
        """Return one row per photo, without drawing any."""
        airframes = [photo_airframe(self._fleet, number, self._seed) for number in range(self._config.num_images)]
        registrations = [airframe.registration for airframe in airframes]
        return pd.DataFrame(
            {
                "filename": [photo_filename(number) for number in range(self._config.num_images)],
                "typename": [self._fleet.types[airframe.type_index].name for airframe in airframes],
                "airlinename": [self._fleet.liveries[airframe.livery_index].name for airframe in airframes],
                "registration": registrations,
                "group": registrations,
            }
        )

    def photos(
        self,
        rows: Sequence[int],
        image_size_px: int,
        *,
        for_training: bool = False,  # noqa: ARG002  # drawn photos need no crop
    ) -> Iterator[Photo]:
        """Draw the photos at these rows, many of them on all cores. The bytes do not depend on the number of cores."""
        # A process takes as long to start as one or two hundred photos take to draw.
        processes = min(len(os.sched_getaffinity(0)), 1 + len(rows) // 200)
        return draw_photos(self._fleet, rows, self._config, image_size_px, self._seed, processes)
