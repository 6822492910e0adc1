"""The aircraft that exist: types, airlines, and registered airframes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aerofuse.synthetic.airframes import BUILT_IN_TYPES, AircraftType
from aerofuse.synthetic.liveries import BUILT_IN_LIVERIES, Livery, random_livery
from aerofuse.synthetic.random_airframes import random_type


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
    airframes = _airframes(len(BUILT_IN_TYPES), len(BUILT_IN_LIVERIES), num_airframes, rng)
    return Fleet(BUILT_IN_TYPES, BUILT_IN_LIVERIES, airframes)


def random_fleet(num_types: int, num_airlines: int, num_airframes: int, seed: int) -> Fleet:
    """Return a fleet of invented types and airlines for pretraining. All differ from each other and from the built-in.

    Raises `ValueError` where there is no room for so many types.
    """
    rng = np.random.default_rng([seed, 13])
    types: tuple[AircraftType, ...] = ()
    for k in range(num_types):
        types += (random_type(rng, f"Type {k + 1:02d}", avoid=types),)
    liveries = tuple(random_livery(rng, name) for name in _airline_names(rng, num_airlines))
    return Fleet(types, liveries, _airframes(num_types, num_airlines, num_airframes, rng))


def _registration(number: int) -> str:
    """QA-AAAA, QA-AAAB, ...: Q begins no country's marks."""
    letters = ""
    for _ in range(4):
        number, place = divmod(number, 26)
        letters = chr(ord("A") + place) + letters
    return f"Q{chr(ord('A') + number)}-{letters}"


def _airframes(num_types: int, num_liveries: int, num_airframes: int, rng: np.random.Generator) -> tuple[Airframe, ...]:
    """Every type flies for every airline equally often (to one airframe), so the airline tells nothing of the type."""
    pairs = [(t, a) for t in range(num_types) for a in range(num_liveries)]
    frames: list[Airframe] = []
    while len(frames) < num_airframes:
        for k in rng.permutation(len(pairs))[: num_airframes - len(frames)]:
            type_index, livery_index = pairs[int(k)]
            frames.append(Airframe(_registration(len(frames)), type_index, livery_index))
    return tuple(frames)


def _airline_names(rng: np.random.Generator, count: int) -> list[str]:
    """Distinct made-up names; they are painted on the fuselage, so they differ in length and shape."""
    starts, middles = ("Bra", "Cel", "Dor", "Fen", "Gli", "Jor", "Kel", "Lum", "Pel", "Sor"), ("a", "e", "i", "o", "u")
    ends = ("dis", "mar", "nova", "rix", "sen", "tavia", "vek", "wyn", "zor")
    taken = {livery.name for livery in BUILT_IN_LIVERIES}
    names: list[str] = []
    while len(names) < count:
        parts = (starts, middles, ends) if len(taken) < 400 else (starts, middles, ends, ends)
        name = "".join(part[int(rng.integers(len(part)))] for part in parts)
        if name not in taken:
            taken.add(name)
            names.append(name)
    return names
