"""What the pipeline asks of a source of photos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import pandas as pd

from aerofuse.data.photo import Photo


class Source(Protocol):
    """Photos that are listed before they are read, so that they can be split first and memory stays bounded."""

    def index(self) -> pd.DataFrame:
        """One row per photo: `filename`, `typename`, `airlinename`, `registration`; what is missing is `None`."""
        ...

    def photos(self, rows: Sequence[int], image_size_px: int) -> Iterator[Photo]:
        """The photos at these rows of the index, in this order, square at `image_size_px`."""
        ...
