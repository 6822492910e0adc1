"""What the pipeline asks of a source of photos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import pandas as pd

from aerofuse.data.photo import Photo


class Source(Protocol):
    """Photos that are listed before they are read, so that they can be split first and memory stays bounded.

    `types` and `airlines` are the class lists; `dropped` are files that cannot be used, with columns `filename` and
    `reason`; `unlisted` are files that no label names.
    """

    types: tuple[str, ...]
    airlines: tuple[str, ...]
    dropped: pd.DataFrame
    unlisted: tuple[str, ...]

    def index(self) -> pd.DataFrame:
        """One row per photo: `filename`, `typename`, `airlinename`, `registration`; what is missing is `None`.

        `group` is equal for photos that must not be on two sides of a split; `split` is there where the source has
        its own.
        """
        ...

    def photos(self, rows: Sequence[int], image_size_px: int, *, for_training: bool) -> Iterator[Photo]:
        """The photos at these rows of the index, in this order, square at `image_size_px`."""
        ...
