"""Groups of photos that belong together: near-copies of one image, and photos that share a label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from aerofuse.ingest.fingerprint import NUM_BITS
from aerofuse.ingest.near_pairs import near_pairs

_MOST_PAIRS = 2_000_000  # near pairs kept before they are summed up


def near_duplicates(fingerprints: list[bytes], most_bits: int) -> npt.NDArray[np.int64]:
    """Return the group of each photo, `[N]`. Photos that differ in at most `most_bits` of 256 are in one group.

    A copy may be mirrored. All such pairs are found (see `near_pairs`).
    """
    # Equal hashes count once: a placeholder image may occur thousands of times.
    places, different = pd.factorize(np.asarray(fingerprints, dtype=object))
    packed = np.frombuffer(b"".join(different), np.uint8).reshape(len(different), 2, NUM_BITS // 8)
    joined = _Joined(len(different))
    for first, second in near_pairs(packed[:, 0], packed[:, 1], most_bits):
        joined.add(first, second)
    return np.asarray(pd.factorize(joined.groups()[places])[0], dtype=np.int64)


def joined_groups(*labels: Sequence[object] | pd.Series | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return one group per photo, `[N]`, from several labels, each `[N]`. Photos that share a label are in one group.

    Labels that are missing (`None`, NaN) join nothing.
    """
    count = len(np.asarray(labels[0], dtype=object))
    first: list[npt.NDArray[np.int64]] = []
    second: list[npt.NDArray[np.int64]] = []
    offset = count
    for label in labels:
        codes, names = pd.factorize(np.asarray(label, dtype=object))
        known = np.flatnonzero(codes >= 0)
        first.append(known)
        second.append(offset + codes[known])
        offset += len(names)
    groups = _components(np.concatenate(first), np.concatenate(second), offset)[:count]
    return np.asarray(pd.factorize(groups)[0], dtype=np.int64)


class _Joined:
    """Groups that are joined pair by pair. Pairs that add nothing are dropped."""

    def __init__(self, count: int) -> None:
        self._groups = np.arange(count)
        self._pairs: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
        self._waiting = 0

    def add(self, first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> None:
        first, second = self._groups[first], self._groups[second]
        new = first != second
        self._pairs.append((first[new], second[new]))
        self._waiting += int(np.count_nonzero(new))
        if self._waiting > _MOST_PAIRS:
            self.groups()

    def groups(self) -> npt.NDArray[np.int64]:
        """The group of each, `[count]`."""
        if self._pairs:
            first, second = (np.concatenate(ends) for ends in zip(*self._pairs, strict=True))
            self._groups = _components(first, second, len(self._groups))[self._groups]
            self._pairs, self._waiting = [], 0
        return self._groups


def _components(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """The connected component of each of `count` nodes; `first` and `second` are the ends of the edges."""
    graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)
