"""What the pretext asks about an aircraft besides its name: the shape of its type, as numbers.

A name says only that two types differ. The shape says in what, so a photo of any type teaches about all others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Literal, get_args, get_origin, get_type_hints

import numpy as np

from aerofuse.synthetic.airframes import AircraftType
from aerofuse.synthetic.mesh import Floats

_HINTS = get_type_hints(AircraftType)


def type_shapes(types: Sequence[AircraftType]) -> Floats:
    """Return the shapes of several types, `[types, measures]`, each measure with mean 0 and deviation 1 over them.

    The size itself is no part of a shape: photos are framed so that it cannot be seen.
    """
    measures = np.array([list(_measures(one)) for one in types])
    deviation = measures.std(axis=0)
    shapes: Floats = (measures - measures.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    return shapes


def _measures(one: AircraftType) -> Iterator[float]:
    """Yield lengths as shares of the aircraft's length, and kinds as one number for each that there is."""
    for field in fields(AircraftType):
        name, value = field.name, getattr(one, field.name)
        if name in ("name", "length_m"):
            continue
        if get_origin(_HINTS[name]) is Literal:
            yield from (float(value == kind) for kind in get_args(_HINTS[name]))
        elif name == "engine_offsets_m":
            yield from (value[0] / one.length_m, value[-1] / one.length_m)  # of the inner and of the outer engine
        else:
            yield value / one.length_m if name.endswith("_m") else float(value)
