"""The two tables of a review, which are label tables: all labels with the suspects marked, and photos to label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from aerofuse.common.files import write_atomically
from aerofuse.review.collection import CHECKED, Collection
from aerofuse.review.review import Review

LABELS_FILE, TO_LABEL_FILE = "labels.csv", "to_label.csv"
RANK, LIKELY, PROBABILITY = "suspect_rank", "likely_type", "likely_probability"
TO_LABEL_RANK = "to_label_rank"
_OURS = (RANK, LIKELY, PROBABILITY, CHECKED, TO_LABEL_RANK)


def label_table(collection: Collection, review: Review) -> pd.DataFrame:
    """Return every labelled row in its old order, with what the review says of the suspects beside it.

    Another order would give another split.
    """
    table = _own_cells(collection.labelled, collection.columns)
    marked = collection.labelled.get(CHECKED, "")
    table[[RANK, LIKELY, PROBABILITY]] = ""
    table[CHECKED] = marked
    row_of = {name: row for row, name in enumerate(table["filename"])}
    for rank, suspect in enumerate(review.suspects, start=1):
        row = row_of[review.labelled["filename"].iloc[suspect.row]]
        table.loc[row, [RANK, LIKELY, PROBABILITY]] = [str(rank), suspect.likely, f"{suspect.likely_probability:.3f}"]
    return table


def table_to_label(collection: Collection, review: Review) -> pd.DataFrame:
    """Return the photos that would teach most, the most useful first; `typename` is empty."""
    rows = review.unlabelled.iloc[[lesson.photo for lesson in review.lessons]].reset_index(drop=True)
    table = _own_cells(rows, collection.columns)
    table[TO_LABEL_RANK] = [str(rank) for rank in range(1, len(rows) + 1)]
    table[LIKELY] = [lesson.likely for lesson in review.lessons]
    table[PROBABILITY] = [f"{lesson.probability:.3f}" for lesson in review.lessons]
    return table


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as a spreadsheet reads it: CSV in UTF-8 with a byte order mark."""
    write_atomically(path, table.to_csv(index=False, lineterminator="\n").encode("utf-8-sig", "backslashreplace"))


def _own_cells(photos: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    return photos[[name for name in columns if name not in _OURS]].copy()
