"""How fast `prepare` finds near-copies among many photos: `python -m tools.benchmarks.copies`.

Fingerprints are made up, in two kinds: `even` ones of random bits, and `uneven` ones of bits that depend on each other,
as those of photos with one layout do. Copies are planted among them: mirrored or not, within the radius, at it and one
bit beyond it. Some fingerprints are there many times, as of a placeholder image. Of 100,000, all are compared with all,
too, by matrix products: both must find the same pairs. Every measurement has a process of its own, whose largest
resident memory counts. `reports/benchmarks/` gets a table named by what it ran on. Nothing else should run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from aerofuse.ingest.duplicates import near_duplicates
from aerofuse.ingest.fingerprint import NUM_BITS
from aerofuse.ingest.near_pairs import near_pairs
from tools.benchmarks.results import COPIES

Kind = Literal["even", "uneven"]
Bytes = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]

RADIUS = 32  # as data.duplicate_bits in params.yaml
OTHER_RADII = (0, 16, 48, 64)
_PLANTED = 20  # one fingerprint in so many is a copy of another
_CLUMPS, _CLUMP = 3, 100  # so many fingerprints are each one in so many of all
_FACTORS, _TILT = 24, 0.6  # of uneven bits: what they have in common, and how far they lean to 0 or 1
_CHUNK = 20_000
_TILE_ROWS, _TILE_COLUMNS = 512, 4096  # of pairs compared at once: 8 MB, which a cache may hold


@dataclass(frozen=True)
class CopiesRun:
    """A measurement. `seconds_all_pairs` and `same_pairs` are `None` where all pairs were not compared.

    `copies` were planted within the radius; `copies_found` of them share their original's group.
    """

    kind: Kind
    fingerprints: int
    most_bits: int
    seconds: float
    peak_bytes: int
    groups: int
    copies: int
    copies_found: int
    seconds_all_pairs: float | None
    same_pairs: bool | None


@dataclass(frozen=True, eq=False)
class PlantedCopies:
    """Fingerprints `[N, 2, 32]`, plain and mirrored; the rows of copies within the radius, and of their originals."""

    packed: Bytes
    copies: Rows
    originals: Rows


def make_fingerprints(kind: Kind, count: int, most_bits: int) -> PlantedCopies:
    """Make `count` fingerprints, of which some are copies. They are the same in every process."""
    rng = np.random.default_rng(0)
    make = _even if kind == "even" else _Uneven(rng)
    packed = np.concatenate([make(rng, min(_CHUNK, count - start)) for start in range(0, count, _CHUNK)])
    rows = rng.permutation(count)
    planted = count // _PLANTED
    originals, copies, others = rows[:planted], rows[planted : 2 * planted], rows[2 * planted :]
    distances = np.resize([most_bits // 2, most_bits, most_bits + 1], planted)
    for start in range(0, planted, _CHUNK):
        part = slice(start, start + _CHUNK)
        bits = np.unpackbits(packed[originals[part]], axis=2)
        bits ^= rng.random(bits.shape).argsort(axis=2) < distances[part, None, None]
        bits[::2] = bits[::2, ::-1].copy()  # mirrored
        packed[copies[part]] = np.packbits(bits, axis=2)
    clumps = others[: _CLUMPS * (count // _CLUMP)].reshape(_CLUMPS, -1)
    packed[clumps] = packed[clumps[:, :1]]
    within = distances <= most_bits
    return PlantedCopies(packed, copies[within], originals[within])


def _even(rng: np.random.Generator, count: int) -> Bytes:
    return rng.integers(0, 256, (count, 2, NUM_BITS // 8), dtype=np.uint8)


class _Uneven:
    """Signs of frequencies as in photos with one layout: the same lean in all of them, and a few common factors."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._lean = _TILT * rng.standard_normal(NUM_BITS)
        self._mix = rng.standard_normal((_FACTORS, NUM_BITS)) / np.sqrt(_FACTORS)

    def __call__(self, rng: np.random.Generator, count: int) -> Bytes:
        frequencies = rng.standard_normal((count, _FACTORS)) @ self._mix + rng.standard_normal((count, NUM_BITS))
        frequencies += self._lean
        mirrored = frequencies * np.resize([1, -1], NUM_BITS)  # every other one across changes its sign
        views = np.stack([frequencies, mirrored], axis=1)
        return np.packbits(views > np.median(views, axis=2, keepdims=True), axis=2)


def all_pairs(one: Bytes, other: Bytes, most_bits: int) -> Iterator[tuple[Rows, Rows]]:
    """Yield the rows of the pairs within `most_bits`, of which the first is not the later, by products of signs.

    Those of one tile come in either order.
    """
    rows, columns = (np.where(np.unpackbits(view, axis=1), np.float32(1), np.float32(-1)) for view in (one, other))
    tile = np.empty((_TILE_ROWS, _TILE_COLUMNS), np.float32)
    for start in range(0, len(rows), _TILE_ROWS):
        above = rows[start : start + _TILE_ROWS]
        for offset in range(start, len(columns), _TILE_COLUMNS):
            beside = columns[offset : offset + _TILE_COLUMNS]
            products = np.matmul(above, beside.T, out=tile[: len(above), : len(beside)])
            first, second = np.nonzero(products >= NUM_BITS - 2 * most_bits)
            yield start + first, offset + second


def _digest(pairs: Iterator[tuple[Rows, Rows]], count: int) -> str:
    """One word for the set of pairs, in whatever order, and however often, they come."""
    codes = [np.minimum(*ends) * count + np.maximum(*ends) for ends in pairs]
    different = np.unique(np.concatenate(codes))
    return hashlib.sha256(different[different // count != different % count].tobytes()).hexdigest()


def measure(kind: Kind, count: int, most_bits: int, *, compared: bool) -> CopiesRun:
    """Find the copies among `count` fingerprints as `prepare` does, and by comparing all pairs where `compared`."""
    made = make_fingerprints(kind, count, most_bits)
    fingerprints = [packed.tobytes() for packed in made.packed]
    started = time.perf_counter()
    groups = near_duplicates(fingerprints, most_bits)
    seconds = time.perf_counter() - started
    peak_bytes = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    copies_found = np.count_nonzero(groups[made.copies] == groups[made.originals])
    seconds_all_pairs, same_pairs = _compare_all(made.packed, most_bits) if compared else (None, None)
    return CopiesRun(
        kind,
        count,
        most_bits,
        round(seconds, 2),
        peak_bytes,
        int(groups.max()) + 1,
        len(made.copies),
        int(copies_found),
        seconds_all_pairs,
        same_pairs,
    )


def _compare_all(packed: Bytes, most_bits: int) -> tuple[float, bool]:
    """The seconds that comparing all pairs takes, and whether it finds the same. Equal fingerprints are there once."""
    different = np.unique(packed.reshape(len(packed), -1), axis=0).reshape(-1, *packed.shape[1:])
    plain, mirrored = different[:, 0].copy(), different[:, 1].copy()
    started = time.perf_counter()
    found = [*all_pairs(plain, plain, most_bits), *all_pairs(plain, mirrored, most_bits)]
    seconds = time.perf_counter() - started
    found += all_pairs(mirrored, plain, most_bits)  # not timed: which photo is first does not matter to the index alone
    expected = _digest(iter(found), len(different))
    return round(seconds, 2), _digest(near_pairs(plain, mirrored, most_bits), len(different)) == expected


def _measure_apart(kind: Kind, count: int, most_bits: int, *, compared: bool) -> CopiesRun:
    """Measure in a process of its own, with a thread for each core."""
    command = [sys.executable, "-m", "tools.benchmarks.copies", "--here", kind, str(count), str(most_bits)]
    if compared:
        command.append("--compared")
    threads = str(len(os.sched_getaffinity(0)))
    environment = os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return CopiesRun(**json.loads(done.stdout))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all and write the table, or measure once and print it."""
    parser = argparse.ArgumentParser(prog="python -m tools.benchmarks.copies", description=__doc__)
    parser.add_argument("--fingerprints", type=int, default=100_000, help="also all with all (default: 100000)")
    parser.add_argument("--many", type=int, default=1_000_000, help="looked up only (default: 1000000)")
    parser.add_argument("--here", nargs=3, metavar=("KIND", "COUNT", "BITS"), help="in this process, one measurement")
    parser.add_argument("--compared", action="store_true", help="with --here: all with all, too")
    options = parser.parse_args(arguments)
    if options.here:
        kind, count, most_bits = options.here
        run = measure(kind, int(count), int(most_bits), compared=options.compared)
        sys.stdout.write(json.dumps(asdict(run)) + "\n")
        return
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    kinds: tuple[Kind, ...] = ("even", "uneven")
    runs = [_measure_apart(kind, options.fingerprints, RADIUS, compared=True) for kind in kinds]
    runs += [_measure_apart("uneven", options.fingerprints, radius, compared=True) for radius in OTHER_RADII]
    runs += [_measure_apart(kind, options.many, RADIUS, compared=False) for kind in kinds]
    write(runs)


def write(runs: Sequence[CopiesRun]) -> None:
    """Write the table of `runs`, named by what they ran on."""
    from tools.benchmarks.side_by_side import write_table  # the processes that are measured do without torch

    table = pd.DataFrame([asdict(run) for run in runs])
    table["cores"] = len(os.sched_getaffinity(0))
    write_table(table, COPIES)


if __name__ == "__main__":
    main()
