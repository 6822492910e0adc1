from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest

from aerofuse.ingest import near_pairs
from aerofuse.ingest.fingerprint import NUM_BITS
from aerofuse.ingest.near_pairs import BitParts, choose_parts
from tests.imports import ROOT

_COUNT = 240
_RADII = (0, 1, 8, 32, 64)

Bits = npt.NDArray[np.uint8]


def _fingerprints(most_bits: int, *, skewed: bool) -> Bits:
    """Bits `[N, 2, 256]`, plain and mirrored: half of them are copies, at the radius or one bit beyond it.

    Every other copy is mirrored, and all mirrored bits lie beyond the radius, so that one way alone finds a copy.
    """
    rng = np.random.default_rng(most_bits)
    ones = rng.beta(0.4, 0.4, NUM_BITS) if skewed else np.full(NUM_BITS, 0.5)
    originals = rng.random((_COUNT // 2, 2, NUM_BITS)) < ones
    copies = originals.copy()
    for number, copy in enumerate(copies):
        copy[0, rng.choice(NUM_BITS, most_bits + number % 2, replace=False)] ^= True
        copy[1, rng.choice(NUM_BITS, most_bits + 1, replace=False)] ^= True
    copies[::3] = copies[::3, ::-1]
    return np.concatenate([originals, copies]).astype(np.uint8)


def _compared_all_with_all(bits: Bits, most_bits: int) -> set[tuple[int, int]]:
    plain, mirrored = bits[:, None, 0], bits[:, None, 1]
    views = [(plain, plain), (plain, mirrored), (mirrored, plain)]
    near = np.any([(one != other.swapaxes(0, 1)).sum(2) <= most_bits for one, other in views], axis=0)
    return _as_set(*np.nonzero(near))


def _as_set(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> set[tuple[int, int]]:
    lower, upper = np.minimum(first, second), np.maximum(first, second)
    return set(zip(lower[lower < upper].tolist(), upper[lower < upper].tolist(), strict=True))


def _found(bits: Bits, most_bits: int) -> set[tuple[int, int]]:
    packed = np.packbits(bits, axis=2)
    ends = list(near_pairs.near_pairs(packed[:, 0], packed[:, 1], most_bits))
    return set().union(*(_as_set(first, second) for first, second in ends))


@pytest.mark.parametrize("skewed", [False, True])
@pytest.mark.parametrize("turned", [None, 0, 1, 2, 3])
@pytest.mark.parametrize("most_bits", _RADII)
def test_the_pairs_are_those_of_all_compared_with_all(
    most_bits: int, turned: int | None, skewed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the division: the one that is chosen depends on how many there are."""
    parts = None if turned is None else BitParts.within(most_bits, turned)
    monkeypatch.setattr(near_pairs, "choose_parts", lambda *_: parts)
    monkeypatch.setattr(near_pairs, "_MOST_RUNS", 2)  # several batches
    bits = _fingerprints(most_bits, skewed=skewed)
    expected = _compared_all_with_all(bits, most_bits)
    assert len(expected) >= _COUNT // 4
    assert skewed or len(expected) == _COUNT // 4  # of the copies, only those at the radius
    assert _found(bits, most_bits) == expected


@pytest.mark.parametrize("most_bits", _RADII)
@pytest.mark.parametrize("turned", range(5))
def test_there_are_as_few_parts_as_the_pigeonhole_principle_allows(most_bits: int, turned: int) -> None:
    parts = BitParts.within(most_bits, turned)
    assert parts.count * (turned + 1) > most_bits
    assert (parts.count - 1) * (turned + 1) <= most_bits
    assert turned < parts.width <= 32
    assert parts.count * parts.width <= NUM_BITS


def _signs(ones: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    bits = np.random.default_rng(0).random((1024, NUM_BITS)) < ones
    return np.where(bits, np.float32(1), np.float32(-1))


def test_the_division_suits_how_many_there_are_and_how_alike() -> None:
    even = _signs(np.full(NUM_BITS, 0.5))
    assert choose_parts(even, 200, 32) is None
    few, many = choose_parts(even, 10**6, 32), choose_parts(even, 10**7, 32)
    assert few is not None
    assert many is not None
    assert few.turned < many.turned
    assert choose_parts(even, 10**5, 64) is None
    uneven = choose_parts(_signs(np.where(np.arange(NUM_BITS) % 2, 0.5, 0.05)), 10**6, 32)
    assert uneven is not None
    assert uneven.turned > few.turned
    assert choose_parts(_signs(np.full(NUM_BITS, 0.01)), 10**5, 32) is None


def test_a_clump_of_copies_is_divided_among_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them finds all others: 640,000 results, which would be one batch."""
    monkeypatch.setattr(near_pairs, "_MOST_RESULTS", 40_000)
    monkeypatch.setattr(near_pairs, "_RUN", 8)
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (4000, 2, NUM_BITS), dtype=np.uint8)
    bits[:800] = bits[0]
    bits[np.arange(800), 0, rng.integers(0, NUM_BITS, 800)] ^= 1
    packed = np.packbits(bits, axis=2)
    sizes = [len(first) for first, _ in near_pairs.near_pairs(packed[:, 0], packed[:, 1], 8)]
    assert sum(sizes) > 640_000
    assert max(sizes) < 4 * 40_000


_BOTH_IN_ONE_PROCESS = """
import {first}
import {second}
import numpy, torch
from aerofuse.ingest.near_pairs import near_pairs
packed = numpy.random.default_rng(0).integers(0, 3, (20_000, 2, 32), dtype=numpy.uint8)
for _ in range(3):
    product = (torch.ones(500, 500) @ torch.ones(500, 500)).sum().item()
    pairs = sum(len(rows) for rows, _ in near_pairs(packed[:, 0], packed[:, 1], 32))
    print(product, pairs)
"""


@pytest.mark.slow
def test_faiss_and_torch_share_a_process_in_either_order() -> None:
    """Each brings its own OpenMP."""
    environment = os.environ | {"OMP_NUM_THREADS": "2", "PYTHONPATH": f"{ROOT / 'src'}"}
    printed = [
        subprocess.run(
            [sys.executable, "-c", _BOTH_IN_ONE_PROCESS.format(first=first, second=second)],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=300,
        ).stdout.splitlines()
        for first, second in (("faiss", "torch"), ("torch", "faiss"))
    ]
    assert printed[0] == printed[1]
    assert len(printed[0]) == 3
    assert len(set(printed[0])) == 1
