"""Confusion of aircraft types: which type is predicted for which."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from aerofuse.common.markdown import Table

_CONFUSED_PAIRS = 10


def type_names(predictions: pd.DataFrame) -> list[str]:
    """Return every type that is a label or a prediction in the table, sorted."""
    return sorted(set(predictions["type"].dropna()) | set(predictions["type_predicted"]))


def confusion_counts(predictions: pd.DataFrame, names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return counts `[C, C]` of true type (row) against predicted type (column), over the labelled images."""
    known = predictions.dropna(subset=["type"])
    rows = pd.Index(names).get_indexer(pd.Index(known["type"]))
    columns = pd.Index(names).get_indexer(pd.Index(known["type_predicted"]))
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(counts, (rows, columns), 1)
    return counts


def confused_pairs(predictions: pd.DataFrame) -> Table:
    """Return the ten pairs of types that are confused most often, in both directions together."""
    names = type_names(predictions)
    counts = confusion_counts(predictions, names)
    together = np.triu(counts + counts.T, k=1)
    first, second = np.nonzero(together)
    order = np.argsort(-together[first, second], kind="stable")[:_CONFUSED_PAIRS]
    images = counts.sum(axis=1)

    def taken(a: int, b: int) -> str:
        return f"{counts[a, b]} of {images[a]}"

    lines = [
        [names[a], names[b], str(together[a, b]), taken(a, b), taken(b, a)]
        for a, b in zip(first[order], second[order], strict=True)
    ]
    header = ["one type", "the other", "confused", "the one predicted as the other", "and the other way round"]
    return Table(header, lines, "llrrr")
