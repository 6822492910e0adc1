"""Building ramp vehicles and a jet bridge from boxes, wheels and a tank: metres, on z = 0, length along x."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from aerofuse.synthetic.engines import wheel
from aerofuse.synthetic.mesh import Mesh, box, join, plain_loft

# (material of mesh.SOLIDS, low corner, high corner); "fairing" wears the first colour, "pylon" the second.
Box = tuple[str, tuple[float, float, float], tuple[float, float, float]]
# (from x, to x, width across, low z, high z, how many) of a row of panes on both sides.
Panes = tuple[float, float, float, float, float, int]


@dataclass(frozen=True)
class Vehicle:
    """What a vehicle is made of; `axles` are stations, `tank` is (from x, to x, radius, height of its middle)."""

    boxes: tuple[Box, ...]
    axles: tuple[float, ...]
    track: float
    wheel_radius: float
    panes: tuple[Panes, ...] = ()
    tank: tuple[float, float, float, float] | None = None


_STEPS: tuple[Box, ...] = tuple(
    ("pylon", (-2.5 + 0.42 * k, -1.0, 0.4 + 0.3 * k), (-2.0 + 0.42 * k, 1.0, 0.75 + 0.3 * k)) for k in range(11)
)
_RAILS: tuple[Box, ...] = tuple(
    ("fairing", (-2.5 + 0.42 * k, side - 0.04, 0.7 + 0.3 * k), (-2.05 + 0.42 * k, side + 0.04, 1.85 + 0.3 * k))
    for k in range(11)
    for side in (-1.0, 1.0)
)
VEHICLES: dict[str, Vehicle] = {
    "bus": Vehicle(
        boxes=(
            ("fairing", (-6.5, -1.5, 0.4), (6.5, 1.5, 3.1)),
            ("pylon", (-6.5, -1.52, 0.4), (6.5, 1.52, 0.9)),
            ("dark", (-6.54, -1.3, 1.2), (-6.4, 1.3, 2.7)),
            ("pylon", (-2.0, -0.9, 3.1), (1.5, 0.9, 3.4)),
        ),
        panes=((-6.0, 6.0, 3.0, 1.35, 2.5, 8),),
        axles=(-4.2, 4.0), track=2.7, wheel_radius=0.5,
    ),
    "tanker": Vehicle(
        boxes=(
            ("pylon", (-5.5, -1.3, 0.6), (5.5, 1.3, 1.1)),
            ("fairing", (-5.5, -1.25, 1.1), (-3.6, 1.25, 2.7)),
            ("dark", (-5.53, -1.1, 1.8), (-5.4, 1.1, 2.5)),
        ),
        panes=((-5.2, -3.9, 2.5, 1.8, 2.5, 1),),
        tank=(-3.2, 5.4, 1.25, 2.35),
        axles=(-4.4, 1.6, 2.9, 4.2), track=2.4, wheel_radius=0.52,
    ),
    "caterer": Vehicle(
        boxes=(
            ("pylon", (-4.2, -1.25, 0.6), (3.8, 1.25, 1.0)),
            ("pylon", (-4.2, -1.2, 1.0), (-2.4, 1.2, 2.7)),
            ("dark", (-4.24, -1.1, 1.8), (-4.1, 1.1, 2.5)),
            ("fairing", (-2.2, -1.3, 2.9), (3.9, 1.3, 5.2)),
            ("strut", (-4.6, -1.2, 2.9), (-2.2, 1.2, 3.05)),
            ("strut", (-1.6, -0.9, 1.0), (-1.2, 0.9, 2.9)),
            ("strut", (2.6, -0.9, 1.0), (3.0, 0.9, 2.9)),
        ),
        panes=((-3.9, -2.7, 2.4, 1.8, 2.5, 1),),
        axles=(-3.2, 2.6), track=2.3, wheel_radius=0.5,
    ),
    "van": Vehicle(
        boxes=(
            ("fairing", (-2.6, -1.0, 0.35), (2.6, 1.0, 1.25)),
            ("fairing", (-1.7, -0.95, 1.25), (2.55, 0.95, 2.15)),
            ("dark", (-1.75, -0.85, 1.3), (-1.6, 0.85, 2.0)),
            ("spinner", (-0.5, -0.3, 2.15), (-0.1, 0.3, 2.4)),
        ),
        panes=((-1.5, 1.8, 1.9, 1.32, 1.95, 3),),
        axles=(-1.7, 1.7), track=1.8, wheel_radius=0.36,
    ),
    "tug": Vehicle(
        boxes=(
            ("fairing", (-2.7, -1.3, 0.35), (2.7, 1.3, 1.15)),
            ("pylon", (-1.3, -0.9, 1.15), (0.3, 0.9, 2.0)),
            ("tyre", (-2.74, -1.3, 0.4), (-2.6, 1.3, 0.7)),
        ),
        panes=((-1.2, 0.2, 1.8, 1.3, 1.85, 1),),
        axles=(-1.7, 1.7), track=2.4, wheel_radius=0.55,
    ),
    "stairs": Vehicle(
        boxes=(
            *_STEPS,
            *_RAILS,
            ("fairing", (2.1, -1.1, 3.5), (3.6, 1.1, 3.8)),
            ("strut", (2.6, -0.8, 0.6), (3.0, 0.8, 3.5)),
            ("pylon", (-2.6, -1.0, 0.35), (3.6, 1.0, 0.7)),
        ),
        axles=(-1.6, 2.6), track=1.9, wheel_radius=0.4,
    ),
}  # fmt: skip
# Tunnel in two widths, cab, legs; the cab touches y = 0, its floor 3.4 m up.
_BRIDGE: tuple[Box, ...] = (
    ("fairing", (-1.7, -3.2, 3.4), (1.7, 0.0, 6.4)),
    ("dark", (-1.72, -2.6, 4.6), (1.72, -0.5, 5.6)),
    ("pylon", (-1.4, -14.0, 3.6), (1.4, -3.2, 6.2)),
    ("fairing", (-1.7, -26.0, 3.4), (1.7, -14.0, 6.5)),
    ("strut", (-1.9, -4.6, 0.3), (-1.5, -4.2, 3.6)),
    ("strut", (1.5, -4.6, 0.3), (1.9, -4.2, 3.6)),
    ("strut", (-1.9, -4.7, 2.0), (1.9, -4.1, 2.4)),
    ("strut", (-0.6, -20.5, 0.0), (0.6, -19.5, 3.4)),
    *(("dark", (-1.73, -25.4 + 1.4 * k, 4.6), (1.73, -24.5 + 1.4 * k, 5.5)) for k in range(8)),
)


def _boxes(rows: tuple[Box, ...]) -> list[Mesh]:
    return [box(np.array(low), np.array(high), material, 0.8 if material == "dark" else 0.25)
            for material, low, high in rows]  # fmt: skip


def _panes(start: float, stop: float, width: float, low: float, high: float, count: int) -> tuple[Box, ...]:
    """Panes as boxes just proud of both walls."""
    pitch, half = (stop - start) / count, width / 2 + 0.03
    return tuple(
        ("dark", (start + k * pitch + 0.12, -half, low), (start + (k + 1) * pitch, half, high)) for k in range(count)
    )


def _tank(start: float, stop: float, radius: float, z: float) -> Mesh:
    """A lying cylinder with rounded ends."""
    angle = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    shape = ((0.0, 0.2), (0.02, 0.75), (0.06, 1.0), (0.94, 1.0), (0.98, 0.75), (1.0, 0.2))
    rings = []
    for along, wide in shape:
        x = np.full_like(angle, start + along * (stop - start))
        rings.append(np.stack([x, wide * radius * np.sin(angle), z + 0.85 * wide * radius * np.cos(angle)], axis=-1))
    return plain_loft(np.stack(rings).astype(np.float32), "fairing", 0.7)


@cache
def vehicle_mesh(kind: str) -> Mesh:
    """Return a vehicle of `VEHICLES`, front towards -x. Raises `ValueError` for an unknown kind."""
    if kind not in VEHICLES:
        raise ValueError(f"unknown vehicle {kind!r}; known: {', '.join(VEHICLES)}")
    made_of = VEHICLES[kind]
    parts = _boxes(made_of.boxes)
    for row in made_of.panes:
        parts += _boxes(_panes(*row))
    if made_of.tank is not None:
        parts.append(_tank(*made_of.tank))
    radius = made_of.wheel_radius
    for x in made_of.axles:
        for side in (-1, 1):
            parts.append(wheel(np.array([x, side * made_of.track / 2, radius], np.float32), radius, 0.35))
    points = join(parts).corners.reshape(-1, 3)
    low, high = points.min(axis=0), points.max(axis=0)
    # The dark strip beneath keeps a vehicle from floating: it is where no light reaches.
    under = box(np.array([low[0] + 0.3, low[1] + 0.2, 0.02]), np.array([high[0] - 0.3, high[1] - 0.2, 0.4]), "tyre", 0)
    return join([under, *parts])


@cache
def bridge_mesh() -> Mesh:
    """Return a jet bridge along y that ends at y = 0."""
    wheels = [wheel(np.array([x, -4.4, 0.5], np.float32), 0.5, 0.4) for x in (-1.7, 1.7)]
    return join([*_boxes(_BRIDGE), *wheels])
