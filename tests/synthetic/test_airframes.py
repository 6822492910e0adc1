"""Published dimensions survive into the mesh, of the ten and of the types for pretraining."""

from __future__ import annotations

import numpy as np
import pytest

from aerofuse.synthetic.airframes import BUILT_IN_TYPES, AircraftType
from aerofuse.synthetic.assembly import aircraft_mesh
from aerofuse.synthetic.mesh import Mesh, solid
from tools.random_fleet import random_fleet

PUBLISHED_M = {
    # length, span, height: as in the planning documents named in airframes.py
    "A320-200": (37.57, 34.10, 11.76),
    "737-800": (39.47, 35.79, 12.55),
    "A350-900": (66.80, 64.75, 17.05),
    "787-9": (62.81, 60.12, 17.02),
    "747-400": (70.66, 64.44, 19.41),
    "A380-800": (72.72, 79.75, 24.09),
    "MD-11": (61.21, 51.66, 17.60),
    "MD-83": (45.06, 32.87, 9.05),
    "ATR 72-600": (27.17, 27.05, 7.65),
    "BAe 146-300": (30.99, 26.34, 8.61),
}
random_types = random_fleet(num_types=12, num_airlines=2, num_airframes=1, seed=4).types
every_drawn_type = pytest.mark.parametrize("aircraft", [*BUILT_IN_TYPES, *random_types], ids=lambda a: a.name)


def faces_in(mesh: Mesh, material: str) -> int:
    """How many faces wear a plain material."""
    x, y, width, height = solid(material)
    at = mesh.texels.mean(axis=1)
    inside = (at[:, 0] > x) & (at[:, 0] < x + width) & (at[:, 1] > y) & (at[:, 1] < y + height)
    return int(inside.sum())


def test_the_ten_are_the_published_ten() -> None:
    assert {a.name: (a.length_m, a.span_m, a.height_m) for a in BUILT_IN_TYPES} == PUBLISHED_M


@every_drawn_type
def test_bounding_box_is_length_span_and_height(aircraft: AircraftType) -> None:
    extent = aircraft_mesh(aircraft).standing.extent_m
    assert extent[0] == pytest.approx(aircraft.length_m, rel=0.01)
    assert extent[1] == pytest.approx(aircraft.span_m, rel=0.01)
    assert extent[2] == pytest.approx(aircraft.height_m, rel=0.02)


@every_drawn_type
def test_stands_on_its_wheels(aircraft: AircraftType) -> None:
    mesh = aircraft_mesh(aircraft)
    assert mesh.standing.corners[..., 2].min() == pytest.approx(mesh.ground_z_m, abs=1e-3)
    assert mesh.flying.corners[..., 2].min() > mesh.ground_z_m


@every_drawn_type
def test_both_halves_are_alike(aircraft: AircraftType) -> None:
    low, high = (getattr(aircraft_mesh(aircraft).flying.corners[..., 1], side)() for side in ("min", "max"))
    assert low == pytest.approx(-high, abs=0.02 * aircraft.span_m)


@every_drawn_type
def test_every_engine_has_a_dark_intake(aircraft: AircraftType) -> None:
    # A propeller's place is taken by its blades; one intake is a disc of twelve faces.
    mesh = aircraft_mesh(aircraft).flying
    if aircraft.propellers:
        assert faces_in(mesh, "propeller") == aircraft.engines * 6 * 2
    else:
        assert faces_in(mesh, "dark") == aircraft.engines * 12


@every_drawn_type
def test_normals_are_units_that_point_outward(aircraft: AircraftType) -> None:
    mesh = aircraft_mesh(aircraft).flying
    length = np.linalg.norm(mesh.normals, axis=-1)
    # Only tips, where a whole ring is one point, have no direction.
    beside = np.linalg.norm(mesh.corners - np.roll(mesh.corners, 1, axis=1), axis=-1)
    tip = (beside < 1e-4) | (np.roll(beside, -1, axis=1) < 1e-4)
    assert np.allclose(length[~tip], 1, atol=1e-3)
    crown = mesh.corners[..., 2].max(axis=1) > 0.9 * aircraft.fuselage_height_m / 2
    fuselage = np.abs(mesh.corners[..., 1]).max(axis=1) < 0.2 * aircraft.fuselage_width_m
    ahead = mesh.corners[..., 0].max(axis=1) < -0.1 * aircraft.length_m
    assert (mesh.facing[crown & fuselage & ahead, 2] > 0).all()
