"""Joining the parts of an aircraft to one mesh."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from aerofuse.synthetic.airframes import AircraftType
from aerofuse.synthetic.engines import engines, ground_z_m, landing_gear
from aerofuse.synthetic.fuselage import fuselage
from aerofuse.synthetic.mesh import Mesh, join, mirrored, plain_loft
from aerofuse.synthetic.surfaces import fin, tailplane, wing, wing_line


@dataclass(frozen=True, eq=False)
class AircraftMesh:
    """`flying` with the gear up, `standing` with the gear down; the ground is at z = `ground_z_m`."""

    flying: Mesh
    standing: Mesh
    ground_z_m: float


@lru_cache(maxsize=1024)
def aircraft_mesh(aircraft: AircraftType) -> AircraftMesh:
    """Return the aircraft, scaled so that its bounding box has exactly the published length and span.

    The parts come within a few per cent of it by construction (a swept tip may reach past the tail cone); the rest
    is one stretch along x and y, too small to see.
    """
    half_wing, half_tail = wing(aircraft), tailplane(aircraft)
    parts = [
        fuselage(aircraft), _belly_fairing(aircraft), half_wing, mirrored(half_wing), half_tail,
        mirrored(half_tail), fin(aircraft), engines(aircraft),
    ]  # fmt: skip
    if aircraft.high_wing:
        parts += _sponsons(aircraft)
    flying = join(parts)
    gear = landing_gear(aircraft)
    low = flying.corners.reshape(-1, 3).min(axis=0)
    length, span, _ = flying.extent_m
    scale = np.array([aircraft.length_m / length, aircraft.span_m / span, 1.0], np.float32)
    middle = np.array([low[0] + length / 2, 0.0, 0.0], np.float32)
    offset = -middle * scale
    flying = flying.moved(scale, offset)
    return AircraftMesh(flying, join([flying, gear.moved(scale, offset)]), ground_z_m(aircraft))


def _belly_fairing(aircraft: AircraftType) -> Mesh:
    """The bulge under (or over) the fuselage that carries the wing."""
    line = wing_line(aircraft)
    half = (aircraft.fuselage_height_m - aircraft.hump_m) / 2
    start = line.leading_x_m(line.root_y_m) - 0.12 * aircraft.root_chord_m
    stop = start + 1.45 * aircraft.root_chord_m
    z = 0.86 * half if aircraft.high_wing else -0.62 * half
    width, height = 0.47 * aircraft.fuselage_width_m, 0.50 * half
    if aircraft.high_wing:
        width, height = 0.30 * aircraft.fuselage_width_m, 0.36 * half
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    along = np.linspace(0, 1, 7)
    swell = np.sqrt(np.clip(1 - (2 * along - 1) ** 4, 0.0, 1))
    rings = np.stack(
        [
            np.stack([np.full_like(angle, start + a * (stop - start)), s * width * np.sin(angle),
                      z + s * height * np.cos(angle)], axis=-1)
            for a, s in zip(along, swell, strict=True)
        ]
    ).astype(np.float32)  # fmt: skip
    return plain_loft(rings, "fairing", 0.5)


def _sponsons(aircraft: AircraftType) -> list[Mesh]:
    """Bulges at the belly that house a high-winged aircraft's main gear."""
    half = aircraft.fuselage_height_m / 2
    x = -aircraft.length_m / 2 + aircraft.nose_gear_m + aircraft.wheelbase_m
    angle = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    along = np.linspace(-1, 1, 6)
    swell = np.sqrt(np.clip(1 - along**4, 0, 1))
    reach = 0.10 * aircraft.length_m
    y = 0.40 * aircraft.fuselage_width_m
    rings = np.stack(
        [
            np.stack([np.full_like(angle, x + a * reach), y + s * 0.22 * half * np.sin(angle) * 2,
                      -0.80 * half + s * 0.26 * half * np.cos(angle)], axis=-1)
            for a, s in zip(along, swell, strict=True)
        ]
    ).astype(np.float32)  # fmt: skip
    side = plain_loft(rings, "fairing", 0.5)
    return [side, mirrored(side)]
