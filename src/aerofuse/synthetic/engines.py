"""Building nacelles, pylons, propellers and landing gear."""

from __future__ import annotations

import numpy as np

from aerofuse.synthetic.airframes import AircraftType
from aerofuse.synthetic.mesh import (
    COWL,
    Floats,
    Mesh,
    box,
    disc,
    join,
    loft,
    mirrored,
    plain_loft,
    quads,
    solid_texels,
    texels_of,
)
from aerofuse.synthetic.surfaces import fin_base_z_m, fin_line, wing_line

_AROUND = 12
# Turbofan: (station along the nacelle, radius), both in fractions of its length and largest radius.
_COWL = ((0.0, 0.84), (0.03, 0.93), (0.12, 0.99), (0.30, 1.0), (0.55, 0.95), (0.78, 0.80), (0.80, 0.70))
_CORE = ((0.72, 0.58), (0.90, 0.50), (1.0, 0.38))
_PLUG = ((0.98, 0.24), (1.12, 0.04))
# Rear engines of the seventies: long slim cowls with one exhaust.
_SLIM_COWL = ((0.0, 0.80), (0.03, 0.90), (0.15, 1.0), (0.45, 1.0), (0.75, 0.92), (1.0, 0.68))
_PROPELLER_COWL = ((0.0, 0.42), (0.06, 0.62), (0.18, 0.86), (0.40, 1.0), (0.70, 0.92), (1.0, 0.30))


def _tube(front: Floats, length: float, radius: float, shape: tuple[tuple[float, float], ...], flat: float) -> Floats:
    """Rings [S, K, 3] round the x axis from `front` aft; `flat` cuts the bottom of each ring by that share."""
    angle = np.linspace(0, 2 * np.pi, _AROUND, endpoint=False)
    rings = []
    for along, wide in shape:
        z = -np.cos(angle) * wide * radius
        z = np.where(z < 0, z * (1 - flat), z)
        y = np.sin(angle) * wide * radius * (1 + 0.25 * flat)
        rings.append(np.stack([np.full_like(angle, along * length), y, z], axis=-1) + front)
    return np.stack(rings).astype(np.float32)


def _painted(rings: Floats, stations: list[float]) -> Mesh:
    """A cowl painted from the livery's cell, nose to tail."""
    across = np.array(stations)[:, None] * np.ones(_AROUND + 1)
    up = np.abs(np.linspace(-1, 1, _AROUND + 1))[None]
    return loft(rings, texels_of(COWL, across, 1 - up), 0.6)


def _turbofan(front: Floats, aircraft: AircraftType, slim: bool) -> Mesh:
    """One nacelle with lip, fan face, cowl, core and plug; `front` is the middle of its intake."""
    length, radius = aircraft.engine_length_m, aircraft.engine_diameter_m / 2
    flat = 0.18 if aircraft.flat_nacelles else 0.0
    shape = _SLIM_COWL if slim else _COWL
    parts = [
        plain_loft(_tube(front, length, radius, shape[:2], flat), "lip", 0.9),
        _painted(_tube(front, length, radius, shape[1:], flat), [s for s, _ in shape[1:]]),
        disc(front + np.array([0.02 * length, 0, 0]), radius * 0.83 * (1 - 0.5 * flat), 0, -1.0, "dark"),
        disc(front + np.array([0.0, 0, 0]), radius * 0.25, 0, -1.0, "hub", spokes=6),
    ]
    end = shape[-1]
    parts.append(disc(front + np.array([end[0] * length * 0.99, 0, 0]), radius * end[1] * 0.97, 0, 1.0, "exhaust"))
    if not slim:
        parts.append(plain_loft(_tube(front, length, radius, _CORE, 0.0), "exhaust", 0.5))
        parts.append(plain_loft(_tube(front, length, radius, _PLUG, 0.0), "exhaust", 0.5))
    return join(parts)


def _pylon(front: Floats, back: Floats, drop_front: float, drop_back: float, width: float) -> Mesh:
    """An upright slab between the nacelle (below) and the wing (above)."""
    top = np.array([front, back])
    below = top - np.array([[0, 0, drop_front], [0, 0, drop_back]])
    side = np.array([0, width / 2, 0])
    ring = np.stack([top - side, top + side, below + side, below - side], axis=1)
    return plain_loft(ring.astype(np.float32), "pylon", 0.3)


def _wing_engine(aircraft: AircraftType, y: float) -> Mesh:
    """A starboard engine under the wing at distance y from the centreline."""
    line = wing_line(aircraft)
    length, radius = aircraft.engine_length_m, aircraft.engine_diameter_m / 2
    leading, z, chord = line.leading_x_m(y), line.z_m(y), line.chord_m(y)
    ahead = 0.50 if aircraft.high_wing else 0.80
    gap = 0.30 * radius if aircraft.high_wing else 0.12 * radius
    if aircraft.flat_nacelles:
        ahead, gap = 0.92, -0.22 * radius
    front = np.array([leading - ahead * length, y, z - radius - gap - 0.03 * chord], np.float32)
    nacelle = _turbofan(front, aircraft, slim=False)
    start = np.array([front[0] + 0.22 * length, y, front[2] + 1.02 * radius])
    stop = np.array([leading + 0.45 * chord, y, z - 0.02 * chord])
    pylon = _pylon(start, stop, 0.35 * radius, max(0.1, gap + 0.9 * radius), 0.16 * radius)
    over = _pylon(
        np.array([start[0], y, start[2] + 0.02]), np.array([leading + 0.1 * chord, y, z + 0.04 * chord]),
        0.3 * radius, 0.2 * radius + gap, 0.2 * radius,
    )  # fmt: skip
    return join([pylon, over, nacelle])


def _propeller_engine(aircraft: AircraftType, y: float) -> Mesh:
    """A turboprop in the starboard high wing, with a six-bladed propeller."""
    line = wing_line(aircraft)
    length, radius = aircraft.engine_length_m, aircraft.engine_diameter_m / 2
    leading, z = line.leading_x_m(y), line.z_m(y)
    front = np.array([leading - 0.52 * length, y, z - 0.45 * radius], np.float32)
    cowl = _painted(_tube(front, length, radius, _PROPELLER_COWL, 0.0), [s for s, _ in _PROPELLER_COWL])
    spinner = plain_loft(_tube(front, 0.16 * length, radius, ((-1.0, 0.03), (-0.5, 0.3), (0.0, 0.42)), 0.0), "spinner")
    blades = []
    reach = 1.96 * aircraft.engine_diameter_m / 1.25
    for k in range(6):
        angle = 0.35 + k * np.pi / 3
        out = np.array([0.0, np.sin(angle), np.cos(angle)])
        across = np.array([0.0, np.cos(angle), -np.sin(angle)])
        at = front + np.array([-0.08 * length, 0, 0])
        grid = np.stack(
            [
                [at + out * (r * reach) - across * w * radius + np.array([t, 0, 0]),
                 at + out * (r * reach) + across * w * radius - np.array([t, 0, 0])]
                for r, w, t in ((0.12, 0.13, 0.16), (0.55, 0.24, 0.14), (1.0, 0.15, 0.08))
            ]
        )  # fmt: skip
        normal = np.broadcast_to(np.array([-1.0, 0.0, 0.0]), grid.shape)
        blades.append(quads(grid, normal, solid_texels("propeller", grid.shape[:2]), 0.3, two_sided=True))
    return join([cowl, spinner, *blades])


def _rear_engine(aircraft: AircraftType) -> Mesh:
    """The starboard engine at the side of the rear fuselage."""
    radius = aircraft.engine_diameter_m / 2
    y = aircraft.engine_offsets_m[0]
    half = aircraft.fuselage_height_m / 2
    front = np.array([(0.725 - 0.5) * aircraft.length_m, y, 0.28 * half], np.float32)
    stub_low = np.array([front[0] + 1.6, 0.3 * y, front[2] - 0.18])
    stub_high = np.array([front[0] + 4.3, y - 0.8 * radius, front[2] + 0.18])
    return join([box(stub_low, stub_high, "pylon"), _turbofan(front, aircraft, slim=True)])


def _fin_engine(aircraft: AircraftType) -> Mesh:
    """The third engine, straight through the root of the fin."""
    radius = 0.95 * aircraft.engine_diameter_m / 2
    z = fin_base_z_m(aircraft) + 0.92 * radius
    leading, _ = fin_line(aircraft, z)
    front = np.array([leading - 1.5, 0.0, z], np.float32)
    length = aircraft.length_m / 2 - 1.2 - front[0]
    rings = _tube(front, length, radius, _SLIM_COWL, 0.0)
    lip = plain_loft(rings[:2], "lip", 0.9)
    cowl = _painted(rings[1:], [s for s, _ in _SLIM_COWL[1:]])
    face = disc(front + np.array([0.1, 0, 0]), 0.78 * radius, 0, -1.0, "dark")
    end = disc(front + np.array([0.99 * length, 0, 0]), 0.66 * radius, 0, 1.0, "exhaust")
    ahead, behind = front + np.array([0.8, 0, 0]), front + np.array([length * 0.9, 0, 0])
    foot = _pylon(ahead, behind, 1.8 * radius, 1.9 * radius, 1.0)
    return join([foot, lip, cowl, face, end])


def engines(aircraft: AircraftType) -> Mesh:
    """Return all engines of an aircraft."""
    if aircraft.engine_place == "rear":
        pair = [_rear_engine(aircraft)]
    elif aircraft.propellers:
        pair = [_propeller_engine(aircraft, y) for y in aircraft.engine_offsets_m]
    else:
        pair = [_wing_engine(aircraft, y) for y in aircraft.engine_offsets_m]
    both = pair + [mirrored(mesh) for mesh in pair]
    if aircraft.engine_place == "wing+fin":
        both.append(_fin_engine(aircraft))
    return join(both)


def ground_z_m(aircraft: AircraftType) -> float:
    """Return the height of the ground below the fuselage axis (negative), metres."""
    return -(aircraft.fuselage_height_m - aircraft.hump_m) / 2 - aircraft.belly_clearance_m


def wheel(centre: Floats, radius: float, width: float) -> Mesh:
    """Return a tyre with its hub. It turns round the y axis; `radius` and `width` are in metres."""
    angle = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    ring = np.stack([radius * np.cos(angle), np.zeros_like(angle), radius * np.sin(angle)], axis=-1)
    half = np.array([0.0, width / 2, 0.0])
    sides = np.stack([ring - half, ring + half]) + centre
    faces = [plain_loft(sides.astype(np.float32), "tyre", 0.1)]
    for side in (-1.0, 1.0):
        at = centre + np.array([0, side * width / 2, 0])
        faces.append(disc(at, radius, 1, side, "tyre", spokes=8))
        faces.append(disc(at + np.array([0, side * 0.02, 0]), 0.5 * radius, 1, side, "hub", spokes=6))
    return join(faces)


def _leg(x: float, y: float, top_z: float, ground: float, radius: float, axles: int, width: float) -> list[Mesh]:
    """A strut with its wheels, `axles` in line, standing on the ground."""
    thick = 0.26 * radius
    parts = [
        box(np.array([x - thick, y - thick, ground + radius]), np.array([x + thick, y + thick, top_z]), "strut", 0.6)
    ]
    for k in range(axles):
        at = x + (k - (axles - 1) / 2) * 2.25 * radius
        parts.append(wheel(np.array([at, y, ground + radius], np.float32), radius, width))
    return parts


def landing_gear(aircraft: AircraftType) -> Mesh:
    """Return nose and main gear, extended, with the wheels on the ground."""
    ground = ground_z_m(aircraft)
    nose_x = -aircraft.length_m / 2 + aircraft.nose_gear_m
    main_x = nose_x + aircraft.wheelbase_m
    radius = min(0.72, 0.16 * aircraft.fuselage_width_m + 0.02)
    half = (aircraft.fuselage_height_m - aircraft.hump_m) / 2
    parts = _leg(nose_x, 0.0, -0.6 * half, ground, 0.82 * radius, 1, 1.3 * radius)
    for y in (-0.5, 0.4):  # the doors of the nose gear's bay
        low, high = np.array([nose_x + 0.3, y, -half - 0.5]), np.array([nose_x + 1.6, y + 0.1, -0.8 * half])
        parts.append(box(low, high, "fairing"))
    for side in (-1.0, 1.0):
        y = side * aircraft.track_m / 2
        top = -0.55 * half
        parts += _leg(main_x, y, top, ground, radius, aircraft.main_axles, 1.7 * radius)
        if aircraft.body_legs:
            body_x = main_x + 3.1 * radius * 1.4
            parts += _leg(body_x, 0.42 * y, top, ground, radius, aircraft.main_axles, 1.7 * radius)
    return join(parts)
