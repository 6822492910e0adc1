"""Building the fuselage: nose, tube, hump and tail cone, lofted from published width and height."""

from __future__ import annotations

import numpy as np

from aerofuse.synthetic.airframes import AircraftType
from aerofuse.synthetic.mesh import PORT, STARBOARD, Floats, Mesh, disc, grid_normals, join, quads, texels_of

_AROUND = 20


def nose_length_m(aircraft: AircraftType) -> float:
    """Return the length of the nose, from the tip to the full section, metres."""
    return aircraft.nose_length * aircraft.fuselage_width_m


def tail_length_m(aircraft: AircraftType) -> float:
    """Return the length of the tail cone, metres."""
    return aircraft.tail_length * aircraft.fuselage_width_m


def profile(aircraft: AircraftType, station_m: Floats) -> tuple[Floats, Floats, Floats]:
    """Return top z, bottom z and half width (metres, [S] each) at stations counted aft from the nose tip."""
    length = aircraft.length_m
    half = (aircraft.fuselage_height_m - aircraft.hump_m) / 2
    half_width = aircraft.fuselage_width_m / 2
    nose, tail = nose_length_m(aircraft), tail_length_m(aircraft)

    along = np.clip(station_m / nose, 0, 1)
    tip = -aircraft.nose_tip
    blunt = (1 - (1 - along) ** 2) ** 0.5
    sloped = (1 - (1 - along) ** 2.1) ** (1 / aircraft.nose_sharpness)
    top = tip + (1 - tip) * (0.6 * (1 - (1 - along) ** 1.9) ** (1 / aircraft.nose_sharpness) + 0.4 * sloped**1.35)
    # The windscreen stands steeper than the nose before it: a dip ahead of it makes the step.
    top = top - aircraft.windscreen_step * np.exp(-(((along - 0.22) / 0.13) ** 2)) * (along > 0)
    bottom = tip - (1 + tip) * blunt**1.1
    width = blunt ** (1.0 + 0.25 * (2 - aircraft.nose_sharpness))

    aft = np.clip((station_m - (length - tail)) / tail, 0, 1)
    end_top, end_bottom = aircraft.tail_rise - 0.72, aircraft.tail_rise - 0.95
    top = top + (end_top - 1) * aft**2.6
    bottom = bottom + (end_bottom + 1) * aft**1.55
    width = width * (1 - 0.93 * aft**1.9)

    top_m, bottom_m = half * top, half * bottom
    if aircraft.hump_m:
        rise = np.clip(station_m / (0.9 * nose), 0, 1)
        fall = np.clip((station_m - 0.24 * length) / (0.10 * length), 0, 1)
        smooth_fall = fall * fall * (3 - 2 * fall)
        top_m = top_m + aircraft.hump_m * np.sqrt(rise) * (rise * (2 - rise)) * (1 - smooth_fall)
    return top_m.astype(np.float32), bottom_m.astype(np.float32), (half_width * width).astype(np.float32)


def _stations_m(aircraft: AircraftType) -> Floats:
    """Cross-section stations, dense in the nose and tail, counted from the nose tip in metres."""
    length = aircraft.length_m
    nose, tail = nose_length_m(aircraft), tail_length_m(aircraft)
    nose_part = nose * np.array([0.0, 0.03, 0.09, 0.17, 0.27, 0.39, 0.54, 0.74, 1.0])
    tail_part = length - tail + tail * np.linspace(0, 1, 8)
    tube = np.linspace(nose, length - tail, 9)[1:-1]
    return np.concatenate([nose_part, tube, tail_part]).astype(np.float32)


def fuselage(aircraft: AircraftType) -> Mesh:
    """Return the whole fuselage. Port and starboard halves are painted from their own cells."""
    station = _stations_m(aircraft)
    top, bottom, width = profile(aircraft, station)
    angle = np.linspace(0, 2 * np.pi, _AROUND, endpoint=False)
    middle = (top + bottom) / 2
    # The widest point of a hump's section stays at the main deck, so upper and lower halves differ.
    if aircraft.hump_m:
        upright = top - (top + bottom) / 2
        middle = middle - 0.4 * np.minimum(aircraft.hump_m, upright)
    height = np.where(np.cos(angle) > 0, (middle - bottom)[:, None], (top - middle)[:, None])
    points = np.stack(
        [
            np.broadcast_to(station[:, None], height.shape) - aircraft.length_m / 2,
            width[:, None] * np.sin(angle),
            middle[:, None] - np.cos(angle) * height,
        ],
        axis=-1,
    ).astype(np.float32)
    normals = grid_normals(points, closed=True)
    aft = np.broadcast_to((station / aircraft.length_m)[:, None], (len(station), _AROUND // 2 + 1))
    up = np.linspace(0, 1, _AROUND // 2 + 1)[None]
    starboard_columns = np.arange(_AROUND // 2 + 1)
    port_columns = np.arange(_AROUND, _AROUND // 2 - 1, -1) % _AROUND
    sides = [
        quads(points[:, columns], normals[:, columns], texels_of(cell, aft, up), 0.75)
        for cell, columns in ((STARBOARD, starboard_columns), (PORT, port_columns))
    ]
    end = points[-1].mean(axis=0)
    exhaust = disc(end, float(width[-1]) * 0.9, 0, 1.0, "exhaust", spokes=6)
    return join([*sides, exhaust])
