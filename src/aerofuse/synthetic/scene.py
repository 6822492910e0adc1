"""Choosing the scene of a photo: viewpoint, sun, weather and surroundings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from aerofuse.synthetic.assembly import AircraftMesh
from aerofuse.synthetic.mesh import Floats, Mesh, unit
from aerofuse.synthetic.params import SyntheticParams
from aerofuse.synthetic.render import Camera, Light, framed, look_at

Place = Literal["apron", "taxiway", "sky"]


@dataclass(frozen=True, eq=False)
class Scene:
    """Everything about a photo but the aircraft's paint and what stands before it.

    `up` [3] is the world's vertical in the aircraft's axes, `eye_height_m` the camera's height above the ground it
    stands on (in flight far below the aircraft), `overcast` whether the sun is hidden.
    """

    place: Place
    mesh: Mesh
    ground_z_m: float
    camera: Camera
    light: Light
    eye_height_m: float
    overcast: bool
    horizon_colour: Floats
    zenith_colour: Floats

    @property
    def on_ground(self) -> bool:
        """Whether the aircraft stands or taxis."""
        return self.place != "sky"


def sample_scene(rng: np.random.Generator, aircraft: AircraftMesh, config: SyntheticParams, size_px: int) -> Scene:
    """Draw a scene; the aircraft lies entirely inside the frame."""
    flying = bool(rng.random() < config.flying_fraction)
    low, high = config.elevation_range_deg
    # Spotters mostly stand abeam, so the turn from side-on is triangular rather than flat.
    turn = np.radians(config.azimuth_spread_deg * (rng.random() - rng.random()))
    side = 1.0 if rng.random() < 0.5 else -1.0
    place: Place = "sky"
    up = np.array([0.0, 0.0, 1.0])
    mesh = aircraft.flying if flying and rng.random() < 0.6 else aircraft.standing
    if flying:
        pitch, bank = np.radians(rng.uniform(-1, 11)), np.radians(rng.normal(0, 5))
        up = np.array([-np.sin(pitch), np.sin(bank) * np.cos(pitch), np.cos(pitch) * np.cos(bank)])
        elevation = rng.uniform(min(low, -1.0), min(high, 4.0)) if low < 4 else rng.uniform(low, high)
    else:
        place = "apron" if rng.random() < 0.55 else "taxiway"
        floor = max(low, 0.0)
        elevation = floor + (max(high, floor) - floor) * rng.random() ** 2
    length = float(mesh.extent_m[0])
    distance = length * rng.uniform(1.5, 4.0)
    ahead = unit(np.array([-1.0, 0.0, 0.0]) - up * -up[0])
    starboard = np.cross(ahead, up)
    rise = np.radians(elevation)
    away = np.cos(rise) * (np.sin(turn) * ahead + side * np.cos(turn) * starboard) + np.sin(rise) * up
    position = distance * away
    eye_height = 2.0
    if not flying:
        position[2] = max(position[2], aircraft.ground_z_m + 1.7)
        eye_height = float(position[2] - aircraft.ground_z_m)
    elif elevation > 0:
        eye_height = float(rng.uniform(600, 2500))
    camera = look_at(position, np.zeros(3), up, float(rng.normal(0, 0.8)))
    fill = float(rng.uniform(*config.framing_range))
    camera = framed(camera, mesh.corners.reshape(-1, 3), size_px, fill, (rng.uniform(-1, 1), rng.uniform(-0.6, 0.6)))
    overcast = bool(rng.random() < 0.3)
    horizon, zenith = _sky_colours(rng, overcast)
    light = _light(rng, away, up, overcast, horizon, flying, config.haze)
    return Scene(place, mesh, aircraft.ground_z_m, camera, light, eye_height, overcast, horizon, zenith)


def _sky_colours(rng: np.random.Generator, overcast: bool) -> tuple[Floats, Floats]:
    """Colours at the horizon and overhead, RGB 0..255."""
    if overcast:
        grey = rng.uniform(165, 225)
        tint = np.array([0.97, 0.99, 1.02])
        return (grey * tint).astype(np.float32), (grey * rng.uniform(0.72, 0.95) * tint).astype(np.float32)
    horizon = np.array([205, 220, 235]) + rng.normal(0, 8) + rng.normal(0, 4, 3)
    zenith = np.array([72, 126, 192]) + rng.normal(0, 16) + rng.normal(0, 6, 3)
    if rng.random() < 0.18:
        horizon, zenith = np.array([245, 205, 160]) + rng.normal(0, 8, 3), np.array([110, 135, 180])
    return np.clip(horizon, 0, 255).astype(np.float32), np.clip(zenith, 0, 255).astype(np.float32)


def _light(
    rng: np.random.Generator, away: Floats, up: Floats, overcast: bool, horizon: Floats, flying: bool, haze: float
) -> Light:
    """The sun mostly behind the camera, as spotters stand; softer and from above under cloud."""
    height = np.radians(rng.uniform(18, 62))
    turn = np.radians(rng.uniform(-75, 75))
    flat = unit(away - up * float(away @ up))
    across = np.cross(up, flat)
    sun = np.cos(height) * (np.cos(turn) * flat + np.sin(turn) * across) + np.sin(height) * up
    strength = rng.uniform(0.85, 1.1)
    warm = np.clip((np.degrees(height) - 12) / 30, 0.3, 1)
    sun_colour = np.array([0.66, 0.55 + 0.09 * warm, 0.42 + 0.18 * warm]) * strength
    sky_colour = np.array([0.50, 0.55, 0.62]) * strength
    if overcast:
        sun = unit(0.25 * sun + up)
        sun_colour, sky_colour = np.full(3, 0.14) * strength, np.array([0.80, 0.82, 0.85]) * strength
    bounce = rng.uniform(0.22, 0.32) if flying else rng.uniform(0.25, 0.40)
    ground_colour = bounce * np.array([1.05, 1.0, 0.92])
    return Light(
        sun.astype(np.float32), up.astype(np.float32), sun_colour.astype(np.float32), sky_colour.astype(np.float32),
        ground_colour.astype(np.float32), horizon, float(haze * rng.random() ** 2),
    )  # fmt: skip
