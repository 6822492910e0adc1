"""Photo files and their labels, listed before any photo is read, and the choice of the types that are learned."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pandas as pd

_SHOWN = 10


@dataclass(frozen=True)
class Listing:
    """Photo files to read, and their labels.

    `table` has a row per photo: `path`, `filename`, the labels, `row` (its row or line in the list), and optionally
    `split`, a box (`xmin, ymin, xmax, ymax`, in pixels from the upper left corner) and columns of the user's own.
    `places` says in words where each row stands. `unlisted` are photo files below the root that the table does not
    name. Class lists are in the order of their ids. `left_out_types` were not chosen, each with its number of photos.
    """

    table: pd.DataFrame
    places: pd.Series
    types: tuple[str, ...]
    airlines: tuple[str, ...]
    unlisted: tuple[str, ...] = ()
    left_out_types: Mapping[str, int] = field(default_factory=dict)


def refuse_repeated_files(table: pd.DataFrame, places: pd.Series) -> None:
    """Raise `ValueError` where two rows, of one list or of two, name one file."""
    repeated = table[table["path"].duplicated(keep=False)]
    groups = [(path, places[photos.index]) for path, photos in repeated.groupby("path", sort=False)]
    if groups:
        lines = "".join(f"\n  {', '.join(found)}: {path}" for path, found in groups[:_SHOWN])
        more = f"\n  and {len(groups) - _SHOWN} more" if len(groups) > _SHOWN else ""
        raise ValueError(f"{len(groups)} photos are listed more than once; keep one row of each:{lines}{more}")


def choose_types(listing: Listing, only_types: Sequence[str] | None, min_photos: int) -> Listing:
    """Return the listing with only the photos of these types, and of those types that have so many photos in all.

    Raises `ValueError` where a name is no type of the listing, or where no type is left.
    """
    listed = listing.table["typename"]
    wanted = listing.types if only_types is None else only_types
    faults = []
    for name in wanted:
        if name not in listing.types:
            near = difflib.get_close_matches(name, listing.types, n=1)
            faults.append(f"{name!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
    if faults:
        more = f" and {len(listing.types) - _SHOWN} more" if len(listing.types) > _SHOWN else ""
        raise ValueError(
            f"data.only_types names what is no type of these photos: {', '.join(faults)}; "
            f"they have {', '.join(map(repr, listing.types[:_SHOWN]))}{more}"
        )
    counts = listed.value_counts()
    chosen = tuple(name for name in listing.types if name in wanted and counts[name] >= min_photos)
    if not chosen:
        most = max((name for name in listing.types if name in wanted), key=lambda name: int(counts[name]))
        raise ValueError(
            f"data.min_photos is {min_photos}, and no type has so many photos; {most!r} has most, {counts[most]}"
        )
    if len(chosen) == len(listing.types):
        return listing
    kept = listed.isin(chosen)
    table = listing.table[kept].reset_index(drop=True)
    airlines = set(table["airlinename"].dropna())
    return replace(
        listing,
        table=table,
        places=listing.places[kept].reset_index(drop=True),
        types=chosen,
        airlines=tuple(name for name in listing.airlines if name in airlines),
        left_out_types={name: int(counts[name]) for name in listing.types if name not in chosen},
    )
