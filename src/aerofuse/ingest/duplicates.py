"""Finding near-duplicates by perceptual hashes: resized, recompressed or mirrored copies of the same image.

A perceptual hash holds the signs of the low frequencies of a small grey version of the image (a discrete cosine
transform, as in ImageHash's `phash`). Copies differ in a few bits of 256, other photos in about half.
"""

from __future__ import annotations

from collections.abc import Sequence

import imagehash
import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image, ImageOps
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tqdm.auto import tqdm

_SIDE = 16
NUM_BITS = _SIDE * _SIDE
_TILE_ROWS, _TILE_COLUMNS = 512, 4096  # of pairs compared at once: 8 MB, which a cache may hold
_MOST_PAIRS = 2_000_000  # near pairs kept before they are summed up

Bits = npt.NDArray[np.bool_]


def fingerprint(image: Image.Image) -> bytes:
    """Return the 256 bits of an image, packed, followed by those of its mirror image."""
    small = image.convert("L").resize((8 * _SIDE, 8 * _SIDE), Image.Resampling.BOX)
    both = (imagehash.phash(view, hash_size=_SIDE).hash for view in (small, ImageOps.mirror(small)))
    return b"".join(np.packbits(bits).tobytes() for bits in both)


def near_duplicates(fingerprints: list[bytes], most_bits: int) -> npt.NDArray[np.int64]:
    """Return the group of each photo, `[N]`. Photos that differ in at most `most_bits` of 256 are in one group.

    All pairs are compared by matrix products of signs, which takes a minute for 100,000 photos on one core. An index
    of parts of the bits would save nothing: 33 parts have 8 bits each, and every seventh pair of unlike photos shares
    one. Memory holds one tile of the pairs.
    """
    packed = np.frombuffer(b"".join(fingerprints), np.uint8).reshape(len(fingerprints), 2, -1)
    # Equal hashes count once: a placeholder image may occur thousands of times.
    different, places = np.unique(packed.reshape(len(fingerprints), -1), axis=0, return_inverse=True)
    bits = np.unpackbits(different.reshape(len(different), 2, -1), axis=-1)
    plain, mirrored = (np.where(bits[:, view], np.float32(1), np.float32(-1)) for view in range(2))
    del bits
    joined = _Joined(len(plain))
    least_product = NUM_BITS - 2 * most_bits
    tile = np.empty((_TILE_ROWS, _TILE_COLUMNS), np.float32)
    starts = range(0, len(plain), _TILE_ROWS)
    for start in tqdm(starts, desc="photos compared", unit="tile", disable=None):
        rows = plain[start : start + _TILE_ROWS]
        for other in (plain, mirrored):
            for offset in range(start, len(plain), _TILE_COLUMNS):
                columns = other[offset : offset + _TILE_COLUMNS]
                products = np.matmul(rows, columns.T, out=tile[: len(rows), : len(columns)])
                first, second = np.nonzero(products >= least_product)
                joined.add(start + first, offset + second)
    groups: npt.NDArray[np.int64] = joined.groups()[places.ravel()]
    return np.asarray(pd.factorize(groups)[0], dtype=np.int64)


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
    """Groups that are joined pair by pair. Pairs that add nothing are dropped from time to time."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._pairs: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
        self._waiting = 0

    def add(self, first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> None:
        self._pairs.append((first, second))
        self._waiting += len(first)
        if self._waiting > _MOST_PAIRS:
            groups = self.groups()
            # One pair per photo says as much: itself and the first of its group.
            representatives = np.unique(groups, return_index=True)[1]
            self._pairs = [(np.arange(self._count), representatives[groups])]
            self._waiting = 0

    def groups(self) -> npt.NDArray[np.int64]:
        """The group of each, numbered from 0 on, `[count]`."""
        first, second = (np.concatenate(ends) for ends in zip(*self._pairs, strict=True))
        return _components(first, second, self._count)


def _components(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """The connected component of each of `count` nodes; `first` and `second` are the ends of the edges."""
    graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)
