"""The built-in data as a source: aircraft drawn from geometry, nothing to download."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import pandas as pd

from aerofuse.data.photo import Photo
from aerofuse.synthetic.fleet import built_in_fleet
from aerofuse.synthetic.params import SyntheticParams
from aerofuse.synthetic.photos import draw_photos, photo_airframe, photo_filename


class SyntheticSource:
    """Photos of ten airliners in the liveries of twelve invented airlines; every label is known."""

    def __init__(self, config: SyntheticParams, seed: int) -> None:
        self._config = config
        self._seed = seed
        self._fleet = built_in_fleet(config.num_airframes, seed)
        index = self.index()
        self.types = tuple(sorted(index["typename"].unique()))
        self.airlines = tuple(sorted(index["airlinename"].unique()))
        self.dropped = pd.DataFrame(columns=["filename", "reason"])
        self.unlisted: tuple[str, ...] = ()

    def index(self) -> pd.DataFrame:
        """One row per photo, without drawing any."""
        airframes = [photo_airframe(self._fleet, number, self._seed) for number in range(self._config.num_images)]
        return pd.DataFrame(
            {
                "filename": [photo_filename(number) for number in range(self._config.num_images)],
                "typename": [self._fleet.types[airframe.type_index].name for airframe in airframes],
                "airlinename": [self._fleet.liveries[airframe.livery_index].name for airframe in airframes],
                "registration": [airframe.registration for airframe in airframes],
                "group": [airframe.registration for airframe in airframes],
            }
        )

    def photos(
        self,
        rows: Sequence[int],
        image_size_px: int,
        *,
        for_training: bool = False,  # noqa: ARG002  # drawn photos need no crop
    ) -> Iterator[Photo]:
        """Draw some photos, many of them on all cores; the same bytes however many there are."""
        # To start a process takes as long as to draw a hundred photos or two.
        processes = min(len(os.sched_getaffinity(0)), 1 + len(rows) // 200)
        return draw_photos(self._fleet, rows, self._config, image_size_px, self._seed, processes)
