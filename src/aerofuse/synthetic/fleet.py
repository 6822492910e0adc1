"""The aircraft that exist: types, airlines, and registered airframes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aerofuse.synthetic.airframes import BUILT_IN_TYPES, AircraftType
from aerofuse.synthetic.liveries import BUILT_IN_LIVERIES, Livery


@dataclass(frozen=True)
class Airframe:
    """One registered aircraft; `type_index` and `livery_index` point into its fleet."""

    registration: str
    type_index: int
    livery_index: int


@dataclass(frozen=True)
class Fleet:
    """All aircraft of a data set."""

    types: tuple[AircraftType, ...]
    liveries: tuple[Livery, ...]
    airframes: tuple[Airframe, ...]


def built_in_fleet(num_airframes: int, seed: int) -> Fleet:
    """Return the fleet of the ten types in the twelve liveries."""
    rng = np.random.default_rng([seed, 11])
    airframes = make_airframes(len(BUILT_IN_TYPES), len(BUILT_IN_LIVERIES), num_airframes, rng)
    return Fleet(BUILT_IN_TYPES, BUILT_IN_LIVERIES, airframes)


def make_airframes(
    num_types: int, num_liveries: int, num_airframes: int, rng: np.random.Generator
) -> tuple[Airframe, ...]:
    """Return airframes such that the airline tells nothing of the type.

    Every type flies for every airline equally often, to one airframe.
    """
    pairs = [(t, a) for t in range(num_types) for a in range(num_liveries)]
    frames: list[Airframe] = []
    while len(frames) < num_airframes:
        for k in rng.permutation(len(pairs))[: num_airframes - len(frames)]:
            type_index, livery_index = pairs[int(k)]
            frames.append(Airframe(_registration(len(frames)), type_index, livery_index))
    return tuple(frames)


def _registration(number: int) -> str:
    """QA-AAAA, QA-AAAB, ...: Q begins no country's marks."""
    letters = ""
    for _ in range(4):
        number, place = divmod(number, 26)
        letters = chr(ord("A") + place) + letters
    return f"Q{chr(ord('A') + number)}-{letters}"
