"""Building wings, winglets, tailplanes and fins, lofted from aerofoil sections."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from aerofuse.synthetic.airframes import AircraftType
from aerofuse.synthetic.fuselage import profile
from aerofuse.synthetic.mesh import (
    FIN,
    TAILPLANE,
    WING_BELOW,
    WING_TOP,
    WINGLET,
    Floats,
    Mesh,
    Region,
    grid_normals,
    join,
    quads,
    texels_of,
    wrapped,
)

# Fractions of the chord and half thicknesses (of the chord's thickness), upper surface from the trailing edge
# forward, then the lower one back.
_CHORD = np.array([1.0, 0.72, 0.38, 0.12, 0.0, 0.12, 0.38, 0.72])
_CAMBER = np.array([0.0, 0.36, 0.55, 0.42, 0.0, -0.38, -0.45, -0.20])


@dataclass(frozen=True)
class WingLine:
    """Leading edge x, z and chord (metres) of a wing as functions of the distance y from the centreline."""

    aircraft: AircraftType
    tip_y_m: float

    @property
    def root_y_m(self) -> float:
        """The distance at which the wing leaves the fuselage."""
        return 0.42 * self.aircraft.fuselage_width_m if not self.aircraft.high_wing else 0.0

    @property
    def kink_y_m(self) -> float:
        """The distance of the kink in the trailing edge."""
        return self.aircraft.kink * self.aircraft.span_m / 2

    def chord_m(self, y: float) -> float:
        """Return the chord."""
        a = self.aircraft
        stations = [self.root_y_m, self.kink_y_m, self.tip_y_m]
        return float(np.interp(y, stations, [a.root_chord_m, a.kink_chord_m, a.tip_chord_m]))

    def leading_x_m(self, y: float) -> float:
        """Return x of the leading edge."""
        a = self.aircraft
        outer = (a.kink_chord_m - a.tip_chord_m) / (self.tip_y_m - self.kink_y_m)
        slope = np.tan(np.radians(a.sweep_deg)) + 0.25 * outer
        return float((a.wing_position - 0.5) * a.length_m + slope * (y - self.root_y_m))

    def z_m(self, y: float) -> float:
        """Return z of the leading edge."""
        a = self.aircraft
        half = (a.fuselage_height_m - a.hump_m) / 2
        root = 0.98 * half if a.high_wing else -0.58 * half
        share = max(y - self.root_y_m, 0) / (self.tip_y_m - self.root_y_m)
        flex = a.wing_flex_m * share**2
        return float(root + np.tan(np.radians(a.dihedral_deg)) * (y - self.root_y_m) + flex)


def wing_line(aircraft: AircraftType) -> WingLine:
    """Return the line of the wing without its winglet. With the winglet, the span is the published one."""
    outward = {"blended": 0.28, "canted": 0.75, "split": 0.35, "curved": 0.55}.get(aircraft.winglet, 0.0)
    lean = outward * aircraft.winglet_height_m
    if aircraft.winglet == "raked":
        lean = 0.075 * aircraft.span_m
    return WingLine(aircraft, aircraft.span_m / 2 - lean)


def _section(leading: Floats, chord: float, thickness: float, up: Floats) -> Floats:
    """Closed aerofoil section [8, 3] from its leading edge aft; `up` is the direction of its thickness."""
    aft = np.array([1.0, 0.0, 0.0])
    points: Floats = leading + chord * _CHORD[:, None] * aft + chord * thickness * _CAMBER[:, None] * up
    return np.asarray(points, np.float32)


def _surface(sections: list[Floats], upper: Region, lower: Region, gloss: float) -> Mesh:
    """Skin of a wing: upper and lower surfaces painted from two cells, the open end closed."""
    grid = np.stack(sections)
    centre = grid[-1].mean(axis=0, keepdims=True)
    grid = np.concatenate([grid, np.broadcast_to(centre, grid[-1].shape)[None]])
    normals = grid_normals(grid, closed=True)
    normals[-1] = normals[-2]
    along = np.linspace(0, 1, len(grid))[:, None]
    points, normals, chord = wrapped(grid), wrapped(normals), wrapped(_CHORD[None])
    halves = [
        quads(points[:, part], normals[:, part], texels_of(cell, chord[:, part], along), gloss)
        for cell, part in ((upper, slice(0, 5)), (lower, slice(4, 9)))
    ]
    return join(halves)


def wing(aircraft: AircraftType) -> Mesh:
    """Return the starboard wing with its winglet."""
    line = wing_line(aircraft)
    inner = np.linspace(line.root_y_m, line.kink_y_m, 5)
    outer = np.linspace(line.kink_y_m, line.tip_y_m, 6)[1:]
    up = np.array([0.0, 0.0, 1.0])
    sections = []
    for y in (*inner, *outer):
        leading = np.array([line.leading_x_m(y), y, line.z_m(y)])
        share = y / line.tip_y_m
        sections.append(_section(leading, line.chord_m(y), 0.17 - 0.07 * share, up))
    parts = [_surface(sections, WING_TOP, WING_BELOW, 0.35)]
    parts.extend(_winglets(aircraft, line))
    return join(parts)


def _winglets(aircraft: AircraftType, line: WingLine) -> list[Mesh]:
    """What stands at the starboard tip, by the type's kind of winglet."""
    y, chord = line.tip_y_m, aircraft.tip_chord_m
    tip = np.array([line.leading_x_m(y), y, line.z_m(y)])
    height, lean = aircraft.winglet_height_m, aircraft.span_m / 2 - y
    kind = aircraft.winglet
    if kind == "none":
        return []
    if kind == "fence":
        inward = np.array([0.0, -0.02, 0.0])
        upper = _plate(tip + inward, chord, np.array([0.55 * chord, 0, 0.5 * height]), 0.35)
        lower = _plate(tip + inward, chord, np.array([0.45 * chord, 0, -0.5 * height]), 0.35)
        return [upper, lower]
    if kind == "split":
        upper = _plate(tip, chord, np.array([0.8 * chord, lean, height]), 0.45)
        lower = _plate(tip, 0.6 * chord, np.array([0.35 * chord, 0.6 * lean, -0.35 * height]), 0.5)
        return [upper, lower]
    if kind == "canted":
        return [_plate(tip, chord, np.array([1.05 * chord, lean, height]), 0.35)]
    # The others grow out of the wing in a curve: (share of the lean, of the height, sweep in tip chords, chord).
    path = {
        "blended": ((0.45, 0.10, 0.15, 0.95), (0.72, 0.42, 0.55, 0.72), (1.0, 1.0, 1.25, 0.38)),
        "curved": ((0.35, 0.06, 0.35, 0.92), (0.75, 0.36, 1.10, 0.72), (0.95, 0.75, 1.95, 0.42), (1, 1, 2.5, 0.16)),
        "raked": ((0.35, 0.0, 0.42, 0.72), (0.7, 0.0, 1.0, 0.44), (1.0, 0.0, 1.75, 0.12)),
    }[kind]
    rise = height if kind != "raked" else 0.2 * lean
    sections = [_section(tip, chord, 0.10, np.array([0.0, 0.0, 1.0]))]
    before = tip
    for out, high, back, width in path:
        climb = high if kind != "raked" else out
        leading = tip + np.array([back * chord, out * lean, climb * rise])
        step = leading - before
        normal = np.array([0.0, -step[2], step[1]]) / max(float(np.hypot(step[1], step[2])), 1e-6)
        sections.append(_section(leading, width * chord, 0.10, normal))
        before = leading
    cell = WINGLET if kind != "raked" else WING_TOP
    return [_surface(sections, cell, cell if kind != "raked" else WING_BELOW, 0.5)]


def _plate(foot: Floats, chord: float, to_tip: Floats, taper: float) -> Mesh:
    """A thin tapered plate standing on a wing tip."""
    across = np.array([0.0, -to_tip[2], to_tip[1]]) / max(float(np.hypot(to_tip[1], to_tip[2])), 1e-6)
    sections = [
        _section(foot + share * to_tip, chord * (1 - (1 - taper) * share), 0.10, across) for share in (0.0, 0.5, 1.0)
    ]
    return _surface(sections, WINGLET, WINGLET, 0.5)


def fin_base_z_m(aircraft: AircraftType) -> float:
    """Return the height of the fuselage's top where the fin stands, metres above the axis."""
    station = aircraft.length_m - 0.8 * aircraft.fin_chord_m
    top, _, _ = profile(aircraft, np.array([station], np.float32))
    return float(top[0])


def fin_tip_z_m(aircraft: AircraftType) -> float:
    """Return the height of the fin's tip, metres above the axis; from the ground it is the published height."""
    half = (aircraft.fuselage_height_m - aircraft.hump_m) / 2
    return aircraft.height_m - half - aircraft.belly_clearance_m


def fin_line(aircraft: AircraftType, z: float) -> tuple[float, float]:
    """Return x of the leading edge and chord (metres) of the fin at height z."""
    base, tip = fin_base_z_m(aircraft), fin_tip_z_m(aircraft)
    share = (z - base) / (tip - base)
    tip_chord = aircraft.fin_chord_m * (0.62 if aircraft.tail == "t-tail" else 0.36)
    chord = aircraft.fin_chord_m + (tip_chord - aircraft.fin_chord_m) * share
    slope = np.tan(np.radians(aircraft.fin_sweep_deg))
    # A T-tail's tip carries the tailplane, which then ends the aircraft; elsewhere the tail cone does.
    end = aircraft.length_m / 2
    if aircraft.tail == "t-tail":
        root = end - 0.10 * aircraft.length_m * 0.35 - tip_chord - slope * (tip - base) * 1.0
    else:
        root = end - 0.045 * aircraft.length_m - aircraft.fin_chord_m
    return float(root + slope * (z - base)), float(chord)


def fin(aircraft: AircraftType) -> Mesh:
    """Return the fin with its dorsal fillet."""
    base, tip = fin_base_z_m(aircraft), fin_tip_z_m(aircraft)
    sunk = base - 0.12 * aircraft.fuselage_height_m
    fillet_z = base + 0.20 * (tip - base)
    heights = [sunk, base, base + 0.10 * (tip - base), *np.linspace(fillet_z, tip, 6)]
    sections = []
    side = np.array([0.0, 1.0, 0.0])
    for z in heights:
        leading, chord = fin_line(aircraft, z)
        fillet = aircraft.dorsal_m * max(0.0, (fillet_z - max(z, base)) / (fillet_z - base)) ** 1.2
        sections.append(_section(np.array([leading - fillet, 0.0, z]), chord + fillet, 0.09, side))
    mesh = _surface(sections, FIN, FIN, 0.7)
    # A motif is drawn for the fin seen flat from the side, so its texels follow x and z, not the chord.
    front, _ = fin_line(aircraft, base)
    top_front, top_chord = fin_line(aircraft, tip)
    back = max(top_front + top_chord, front + aircraft.fin_chord_m)
    across = (mesh.corners[..., 0] - front) / (back - front)
    up = (mesh.corners[..., 2] - base) / (tip - base)
    return replace(mesh, texels=texels_of(FIN, across, up))


def _tail_sweep(aircraft: AircraftType) -> float:
    """Sweep of the tailplane's leading edge, radians."""
    return float(np.radians(min(aircraft.sweep_deg * 1.05 + 4, 40)))


def tailplane(aircraft: AircraftType) -> Mesh:
    """Return the starboard half of the tailplane."""
    half_span = aircraft.tailplane_span_m / 2
    root_chord = 0.40 * half_span * (1.25 if aircraft.tail == "conventional" else 1.0)
    if aircraft.tail == "t-tail":
        leading, chord = fin_line(aircraft, fin_tip_z_m(aircraft))
        z, front, root_y = fin_tip_z_m(aircraft) - 0.12, leading + 0.06 * chord, 0.0
        root_chord = min(chord, 0.5 * half_span)
    else:
        root_y = 0.10 * aircraft.fuselage_width_m
        half = (aircraft.fuselage_height_m - aircraft.hump_m) / 2
        # The swept tips end about where the tail cone does.
        reach = np.tan(_tail_sweep(aircraft)) * (half_span - root_y) + 0.55 * root_chord
        z, front = 0.30 * half, 0.495 * aircraft.length_m - max(reach, 1.02 * root_chord)
        if aircraft.engine_place == "wing+fin":
            z = 0.15 * half
    sweep = _tail_sweep(aircraft)
    dihedral = np.radians(0.0 if aircraft.tail == "t-tail" else 6.5)
    sections = []
    for share in np.linspace(0, 1, 5):
        y = root_y + share * (half_span - root_y)
        chord = root_chord * (1 - 0.6 * share)
        leading_at = front + np.tan(sweep) * (y - root_y) + 0.25 * 0.6 * root_chord * share
        at = np.array([leading_at, y, z + np.tan(dihedral) * (y - root_y)])
        sections.append(_section(at, chord, 0.10, np.array([0.0, 0.0, 1.0])))
    return _surface(sections, TAILPLANE, TAILPLANE, 0.35)
