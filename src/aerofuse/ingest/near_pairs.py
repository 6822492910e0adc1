"""Finding all pairs of fingerprints that differ in a few bits, without comparing all with all.

The bits are divided into parts. Two fingerprints that differ in few bits differ in at most `turned` bits of one part or
more, by the pigeonhole principle. So a hash table per part gives all candidates, and these are compared in full
(multi-index hashing: Norouzi, Punjani and Fleet, arXiv 1307.2982). The tables are faiss' `IndexBinaryHash`, which keeps
the fingerprints of an entry side by side. There is one at a time, so that memory stays small.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from aerofuse.ingest.fingerprint import NUM_BITS

logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # it tells which instructions it has tried to use

import faiss  # noqa: E402

_WORD_BITS = 64
_WIDEST = 32  # bits of a part: more would tell no more fingerprints apart
_MOST_TURNED = 4
# What a query takes on one core, in nanoseconds: to look an entry up, to compare a candidate, and one of all.
_LOOKUP_NS, _CANDIDATE_NS, _COMPARISON_NS = 30.0, 1.5, 1.0
_SAMPLE = 1024  # fingerprints from which candidates are estimated
_CHUNK = 65_536  # fingerprints whose bits are unpacked at once
_RUN, _MOST_RUNS = 64, 256  # queries that stay together, and runs in a batch
_MOST_RESULTS = 2_000_000  # of a batch, on average

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]
Signs = npt.NDArray[np.float32]


@dataclass(frozen=True)
class BitParts:
    """A division of the bits into `count` parts of `width` bits. In one of them at most `turned` may differ."""

    count: int
    width: int
    turned: int

    @classmethod
    def within(cls, most_bits: int, turned: int) -> BitParts:
        """Return the fewest parts that find all pairs within `most_bits`."""
        count = most_bits // (turned + 1) + 1
        return cls(count, min(NUM_BITS // count, _WIDEST), turned)

    def nanoseconds(self, signs: Signs, count: int) -> float:
        """Estimate the time of a query among `count` fingerprints, of which `signs [S, 256]` are a sample."""
        lookups = sum(math.comb(self.width, number) for number in range(self.turned + 1))
        starts = range(0, self.count * self.width, self.width)
        share = sum(_near_share(signs[:, start : start + self.width], self.turned) for start in starts)
        return self.count * lookups * _LOOKUP_NS + count * share * _CANDIDATE_NS


def near_pairs(plain: Bytes, mirrored: Bytes, most_bits: int) -> Iterator[tuple[Rows, Rows]]:
    """Yield the rows of all pairs within `most_bits` of each other, as they are or with one of both mirrored.

    `plain` and `mirrored` are packed bits, `[N, 32]`. A pair may come more than once, in either order, and each row
    comes with itself.
    """
    views = _shuffled(plain), _shuffled(mirrored)
    signs = _sample_signs(views[0])
    parts = choose_parts(signs, len(plain), most_bits)
    results = 1 + len(plain) * _near_share(signs, most_bits)
    runs = min(max(1, int(_MOST_RESULTS / results) // _RUN), _MOST_RUNS)
    rounds = parts.count if parts else 1
    with tqdm(total=2 * rounds * len(plain), desc="copies looked up", unit_scale=True, disable=None) as progress:
        for _ in range(rounds):
            index = _index(views[0], parts)
            for view in views:
                for rows in _batches(_order(view, parts), runs):
                    limits, _, found = index.range_search(view[rows].view(np.uint8), most_bits + 1)
                    yield np.repeat(rows, limits[1:].astype(np.int64) - limits[:-1].astype(np.int64)), found
                    progress.update(len(rows))
            if parts:
                views = _rotated(views[0], parts.width), _rotated(views[1], parts.width)


def choose_parts(signs: Signs, count: int, most_bits: int) -> BitParts | None:
    """Return the fastest division for `count` fingerprints, or `None` where it is faster to compare all.

    The bits of photos are neither even nor independent, so candidates are counted in a sample, `signs [S, 256]`.
    """
    choices: dict[BitParts | None, float] = {None: count * _COMPARISON_NS}
    for turned in range(_MOST_TURNED + 1):
        parts = BitParts.within(most_bits, turned)
        choices[parts] = parts.nanoseconds(signs, count)
    return min(choices, key=choices.__getitem__)


def _near_share(signs: Signs, most_bits: int) -> float:
    """The share of pairs in a sample `[S, bits]` that differ in at most `most_bits`, none paired with itself."""
    count, bits = len(signs), signs.shape[1]
    near = int(np.count_nonzero(signs @ signs.T >= bits - 2 * most_bits))
    return (near - count) / max(1, count * (count - 1))


def _sample_signs(words: Words) -> Signs:
    rows = np.random.default_rng(0).choice(len(words), min(len(words), _SAMPLE), replace=False)
    bits = np.unpackbits(words[rows].view(np.uint8), axis=1, bitorder="little")
    return np.where(bits, np.float32(1), np.float32(-1))


def _shuffled(packed: Bytes) -> Words:
    """Fingerprints with their bits in a random order, the same for all, because neighbouring bits are alike."""
    order = np.random.default_rng(0).permutation(NUM_BITS)
    shuffled = np.empty((len(packed), NUM_BITS // 8), np.uint8)
    for start in range(0, len(packed), _CHUNK):
        bits = np.unpackbits(packed[start : start + _CHUNK], axis=1)[:, order]
        shuffled[start : start + _CHUNK] = np.packbits(bits, axis=1)
    return shuffled.view(np.uint64)


def _rotated(words: Words, bits: int) -> Words:
    """The next part in front, where a table takes it; the one before is last."""
    rotated: Words = (words >> np.uint64(bits)) | (np.roll(words, -1, axis=1) << np.uint64(_WORD_BITS - bits))
    return rotated


def _order(words: Words, parts: BitParts | None) -> Rows:
    """Rows by their part in front: what follows each other looks for the same entries, which then are in the cache."""
    return np.argsort(words[:, 0] % 2**parts.width) if parts else np.arange(len(words))


def _index(words: Words, parts: BitParts | None) -> faiss.IndexBinary:
    if parts is None:
        everything = faiss.IndexBinaryFlat(NUM_BITS)
        everything.add(words.view(np.uint8))
        return everything
    index = faiss.IndexBinaryHash(NUM_BITS, parts.width)
    index.nflip = parts.turned
    rows = _order(words, parts)
    index.add_with_ids(words[rows].view(np.uint8), rows)
    return index


def _batches(order: Rows, runs: int) -> Iterator[Rows]:
    """Rows in their order, in runs; `runs` of them at once, from anywhere.

    A clump of copies, each of which finds all others, is so divided among the batches.
    """
    count = -(-len(order) // _RUN)
    pieces = np.array_split(order, max(1, count))
    mixed = np.random.default_rng(0).permutation(count)
    for start in range(0, count, runs):
        yield np.concatenate([pieces[number] for number in np.sort(mixed[start : start + runs])])
