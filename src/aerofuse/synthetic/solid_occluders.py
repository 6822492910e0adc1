"""Drawing occluders that are solid: vehicles, a jet bridge, another aircraft."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from aerofuse.synthetic.airframes import AircraftType
from aerofuse.synthetic.assembly import aircraft_mesh
from aerofuse.synthetic.flat_occluders import Mask, Sprite
from aerofuse.synthetic.liveries import Livery
from aerofuse.synthetic.mesh import SOLIDS, TEXTURE_HEIGHT, TEXTURE_WIDTH, Mesh, solid
from aerofuse.synthetic.paint import texture
from aerofuse.synthetic.render import SUPERSAMPLING, render
from aerofuse.synthetic.scene import Scene
from aerofuse.synthetic.vehicles import VEHICLES, bridge_mesh, vehicle_mesh

_PAINTS = (
    (236, 236, 232), (240, 196, 44), (206, 60, 44), (52, 92, 160), (214, 216, 218), (60, 120, 84), (240, 132, 40),
)  # fmt: skip


def vehicle(rng: np.random.Generator, scene: Scene, hidden: Mask, target: float) -> Sprite:
    """Draw a ramp vehicle nearer to the camera than the aircraft; for a larger share, a larger and nearer one."""
    kinds = tuple(VEHICLES) if target < 0.2 else ("bus", "tanker", "caterer")
    kind = kinds[int(rng.integers(len(kinds)))]
    aircraft_px = scene.mesh.extent_m[0]
    # A ramp vehicle is a third of an A320's length but a sixth of an A380's: nearness makes up for it.
    nearness = float(np.clip(rng.uniform(0.25, 0.45) + 0.55 * target + 0.002 * aircraft_px, 0.2, 0.82))
    at = _before(rng, scene, nearness)
    heading = rng.normal(0, 0.35) + (np.pi if rng.random() < 0.5 else 0.0)
    mesh = _turned(vehicle_mesh(kind), float(heading), 1.0, at)
    return _rendered(mesh, _paint_sheet(rng), scene, hidden, haze=0.3)


def jet_bridge(rng: np.random.Generator, scene: Scene, hidden: Mask, target: float) -> Sprite:
    """Draw a jet bridge that comes from the camera's side to the forward fuselage."""
    side = 1.0 if scene.camera.position[1] > 0 else -1.0
    span = float(scene.mesh.extent_m[0])
    scale = float(np.clip(span / 40, 0.8, 1.35)) * rng.uniform(0.95, 1.3) * (1 + 0.5 * target)
    x = -rng.uniform(0.1, 0.36) * span
    angle = (0.0 if side < 0 else np.pi) + rng.normal(0, 0.45)
    mesh = _turned(bridge_mesh(), float(angle), scale, (x, side * 2.2, scene.ground_z_m))
    return _rendered(mesh, _paint_sheet(rng), scene, hidden, haze=0.5)


def other_aircraft(
    rng: np.random.Generator, scene: Scene, hidden: Mask, target: float, aircraft: AircraftType, livery: Livery
) -> Sprite:
    """Draw the nose or tail of another aircraft that taxis past before the first.

    It always reaches in from outside the frame. The subject of a photo is the aircraft that is wholly in it.
    """
    mesh = aircraft_mesh(aircraft)
    length = float(scene.mesh.extent_m[0])
    nearness = float(np.clip(rng.uniform(0.25, 0.45) + 0.3 * target, 0.25, 0.6))
    _, y, ground = _before(rng, scene, nearness)
    from_tail = 1.0 if rng.random() < 0.5 else -1.0
    eye_x = float(scene.camera.position[0])
    edge = eye_x * nearness + from_tail * 0.5 * length * (1 - nearness)
    x = edge + from_tail * (0.5 - rng.uniform(0.1, 0.5)) * aircraft.length_m
    turn = float(rng.normal(0, 0.15)) + (np.pi if rng.random() < 0.5 else 0.0)
    placed = _turned(mesh.standing, turn, 1.0, (x, y, ground - mesh.ground_z_m))
    level = 1 if hidden.shape[0] < 320 else 0
    return _rendered(placed, texture(aircraft, livery, level), scene, hidden, haze=1.0)


def _paint_sheet(rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A texture sheet (quarter size) whose plain cells wear two of the usual ramp colours."""
    scale = 4
    sheet = np.full((TEXTURE_HEIGHT // scale, TEXTURE_WIDTH // scale, 3), 128, np.uint8)
    first, second = (_PAINTS[int(k)] for k in rng.choice(len(_PAINTS), 2, replace=False))
    colours = {
        "dark": (38, 46, 56), "tyre": (28, 28, 30), "strut": (120, 122, 124), "hub": (150, 150, 150),
        "fairing": first, "pylon": second, "spinner": (240, 150, 30),
    }  # fmt: skip
    for name in SOLIDS:
        x, y, width, height = (v // scale for v in solid(name))
        sheet[y : y + height, x : x + width] = colours.get(name, (128, 128, 128))
    return sheet


def _turned(mesh: Mesh, angle: float, scale: float, to: tuple[float, float, float]) -> Mesh:
    """The mesh turned about z, scaled and set down at a point."""
    turn = np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]], np.float32)
    return replace(
        mesh,
        corners=(mesh.corners @ turn * scale + np.array(to)).astype(np.float32),
        normals=(mesh.normals @ turn).astype(np.float32),
        facing=(mesh.facing @ turn).astype(np.float32),
    )


def _before(rng: np.random.Generator, scene: Scene, nearness: float) -> tuple[float, float, float]:
    """A point on the ground between the camera and the aircraft; `nearness` 0 at the aircraft, 1 at the camera."""
    x = rng.uniform(-0.4, 0.4) * float(scene.mesh.extent_m[0])
    eye = scene.camera.position
    return (x + (float(eye[0]) - x) * nearness, float(eye[1]) * nearness, scene.ground_z_m)


def _rendered(mesh: Mesh, texture: npt.NDArray[np.uint8], scene: Scene, hidden: Mask, haze: float) -> Sprite:
    """The mesh in the scene, with this share of the haze that lies before the aircraft."""
    light = replace(scene.light, haze=haze * scene.light.haze)
    layer = render(mesh, texture, scene.camera, light, hidden.shape[0] // SUPERSAMPLING)
    return Sprite(layer.colour, layer.mask, slides=True)
