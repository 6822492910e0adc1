"""Drawing what is behind an aircraft: sky, clouds, hills, skyline, ground, and the shadow of the aircraft."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from aerofuse.synthetic.mesh import Floats
from aerofuse.synthetic.render import silhouette
from aerofuse.synthetic.scene import Scene

_YELLOW = np.array([214, 176, 54], np.float32)
_WHITE = np.array([220, 220, 214], np.float32)
_DRY = np.array([150, 140, 88], np.float32)


@cache
def _noise_tile() -> Floats:
    """A seamless noise [256, 256] about 0, the same in every process; surfaces read it at offsets."""
    rng = np.random.default_rng(20_240_501)
    total = np.zeros((256, 256), np.float32)
    for cells, weight in ((4, 0.6), (16, 0.5), (64, 0.45), (256, 0.35)):
        coarse = rng.standard_normal((cells, cells)).astype(np.float32)
        padded = np.pad(coarse, 2, mode="wrap")
        factor = 256 // cells
        grown = cv2.resize(padded, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
        total += weight * grown[2 * factor : 2 * factor + 256, 2 * factor : 2 * factor + 256]
    return total


def _read_noise(u: Floats, v: Floats) -> Floats:
    """Noise at continuous tile coordinates (256 to a period), without steps."""
    tile = _noise_tile()
    wrapped = np.pad(tile, ((0, 1), (0, 1)), mode="wrap")
    columns, rows = np.mod(u, 256).astype(np.float32), np.mod(v, 256).astype(np.float32)
    return np.asarray(cv2.remap(wrapped, columns, rows, cv2.INTER_LINEAR), np.float32)


def smooth_noise(rng: np.random.Generator, rows: int, columns: int, cells: tuple[float, float], octaves: int) -> Floats:
    """Return cloud-like noise [rows, columns] of about zero mean; `cells` across x and y for the coarsest octave."""
    total = np.zeros((rows, columns), np.float32)
    weight = 1.0
    for octave in range(octaves):
        wide, high = (max(2, round(c * 2**octave)) + 3 for c in cells)
        coarse = rng.standard_normal((min(high, rows), min(wide, columns))).astype(np.float32)
        total += np.float32(weight) * cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_CUBIC)
        weight *= 0.55
    return total


def background(rng: np.random.Generator, scene: Scene, size_px: int) -> Floats:
    """Draw everything behind the aircraft, its shadow included: [S, S, 3] float 0..255."""
    middle = np.arange(size_px, dtype=np.float32) + 0.5
    rays = scene.camera.rays(middle[None, :], middle[:, None])
    lift = rays @ scene.light.up
    image = _sky(rng, scene, lift, size_px)
    horizon = _horizon_rows(scene, middle)
    if horizon.min() > size_px + 1:
        return image
    if scene.on_ground or scene.eye_height_m < 100:
        _hills(rng, scene, image, horizon)
    first = int(np.clip(horizon.min() - 1, 0, size_px - 1))
    draw_ground = _airfield if scene.on_ground else _fields
    ground = draw_ground(rng, scene, rays[first:], lift[first:])
    below = np.clip(middle[first:, None] - horizon[None, :] + 0.5, 0, 1)[..., None]
    image[first:] += (ground - image[first:]) * below
    if scene.eye_height_m < 100:
        _skyline(rng, scene, image, horizon)
    if scene.on_ground:
        _cast_shadow(scene, image)
    return image


def _horizon_rows(scene: Scene, columns: Floats) -> Floats:
    """Row of the horizon in each column [S]."""
    across, down, forward = scene.camera.axes @ scene.light.up
    x = (columns - scene.camera.centre_px[0]) / scene.camera.focal_px
    y = -(forward + across * x) / down
    return np.asarray(y * scene.camera.focal_px + scene.camera.centre_px[1], np.float32)


def _jittered(rng: np.random.Generator, colour: tuple[float, float, float], spread: float) -> Floats:
    """A colour [3] that differs from photo to photo, more in brightness than in hue."""
    shift = rng.normal(0, spread) + rng.normal(0, 0.35 * spread, 3)
    return np.asarray(np.array(colour) + shift, np.float32)


def _sky(rng: np.random.Generator, scene: Scene, lift: Floats, size: int) -> Floats:
    share = np.clip(lift * np.float32(rng.uniform(1.6, 3.2)) + np.float32(0.05), 0, 1)[..., None]
    image: Floats = scene.horizon_colour + (scene.zenith_colour - scene.horizon_colour) * np.sqrt(share)
    if scene.overcast:
        clouds = smooth_noise(rng, size, size, (2.5, 4), 4)
        return np.asarray(image + clouds[..., None] * np.float32(rng.uniform(4, 13)))
    if rng.random() < 0.3:
        return image
    stretch = rng.uniform(1.2, 4)
    clouds = smooth_noise(rng, size, size, (2.0, 2.0 * stretch), 5)
    cover = np.clip((clouds - np.float32(rng.uniform(-0.2, 1.0))) * np.float32(rng.uniform(0.5, 1.2)), 0, 1)
    shade = np.clip(np.roll(clouds, -max(1, size // 24), axis=0) - clouds, -1, 1)
    white = np.array([246, 246, 248], np.float32) + (scene.horizon_colour - 235) * np.float32(0.25)
    colour = white - 26 * np.clip(shade + 0.25, 0, 1)[..., None]
    return np.asarray(image + (colour - image) * (cover * np.float32(rng.uniform(0.5, 0.95)))[..., None])


def _hills(rng: np.random.Generator, scene: Scene, image: Floats, horizon: Floats) -> None:
    """A far, bluish range."""
    if rng.random() < 0.55:
        return
    size = len(horizon)
    per_degree = scene.camera.focal_px * np.radians(1.0)
    rise = (smooth_noise(rng, 1, size, (2, 1), 4)[0] * 0.35 + rng.uniform(0.5, 1.6)) * per_degree
    rows = np.arange(size)[:, None] + 0.5
    share = np.clip(rows - (horizon - np.maximum(rise, 0))[None] + 0.5, 0, 1)[..., None]
    colour = 0.62 * scene.horizon_colour + 0.38 * np.array([70, 90, 105])
    image += (colour - image) * share


def _skyline(rng: np.random.Generator, scene: Scene, image: Floats, horizon: Floats) -> None:
    """A line of woods beyond the field, sometimes with hangars and a terminal before it."""
    size = len(horizon)
    rows = np.arange(size, dtype=np.float32)[:, None] + 0.5
    per_degree = scene.camera.focal_px * np.radians(1.0)
    rough = smooth_noise(rng, 1, size, (5, 1), 5)[0]
    height = np.maximum(np.float32(rng.uniform(0.5, 1.7)) + np.float32(0.24) * rough, 0.15) * np.float32(per_degree)
    foot = horizon + np.float32(0.12 * per_degree)
    # Only the rows that the woods can reach are worked on.
    first = int(np.clip((horizon - height).min() - 1, 0, size - 1))
    last = int(np.clip(foot.max() + 2, first + 1, size))
    rows = rows[first:last]
    share = np.clip(rows - (horizon - height)[None] + 0.5, 0, 1) * np.clip(foot[None] - rows + 0.5, 0, 1)
    leaves = smooth_noise(rng, last - first, size, (size / 6, (last - first) / 5 + 1), 2) * 11
    depth = np.clip((rows - (horizon - height)[None]) / np.maximum(height, 1)[None], 0, 1)
    green = _jittered(rng, (58, 74, 46), 8)
    colour = green + (leaves - 22 * depth + 8)[..., None]
    haze = rng.uniform(0.15, 0.55)
    colour = colour + (scene.horizon_colour - colour) * haze
    image[first:last] += (colour - image[first:last]) * share[..., None]
    if scene.on_ground and rng.random() < 0.6:
        for _ in range(int(rng.integers(1, 4))):
            _building(rng, scene, image, horizon, per_degree, haze)


def _building(
    rng: np.random.Generator, scene: Scene, image: Floats, horizon: Floats, per_degree: float, haze: float
) -> None:
    """One hangar or terminal block on the horizon, with window bands and a darker side."""
    size = len(horizon)
    width = int(per_degree * rng.uniform(2.5, 9)) + 3
    left = int(rng.integers(-width // 2, size))
    start, stop = max(left, 0), min(left + width, size)
    if stop - start < 3:
        return
    foot = int(np.clip(horizon[(start + stop) // 2] + 0.2 * per_degree, 0, size))
    top = int(np.clip(foot - per_degree * rng.uniform(0.9, 2.4), 0, size))
    if foot - top < 3:
        return
    wall = np.array([175, 178, 180]) * rng.uniform(0.65, 1.1) + rng.normal(0, 8, 3)
    colour = wall + (scene.horizon_colour - wall) * haze
    block = image[top:foot, start:stop]
    block[:] = colour
    block[: max(1, len(block) // 9)] = colour * 0.82
    corner = max(1, int((stop - start) * rng.uniform(0.12, 0.35)))
    block[:, :corner] *= 0.84
    if rng.random() < 0.6:
        glass = np.array([70, 84, 98]) + (scene.horizon_colour - np.array([70, 84, 98])) * haze
        third = max(1, len(block) // 5)
        block[2 * third : 3 * third] = 0.7 * glass + 0.3 * colour
    else:
        block[len(block) // 3 :, corner + 1 :: max(4, width // 4)] *= 0.85


def _ground_points(scene: Scene, rays: Floats, lift: Floats) -> tuple[Floats, Floats, Floats]:
    """Aft (x) and starboard (y) metres where each pixel's ray meets the ground, and the distance along it."""
    far = scene.eye_height_m / np.maximum(-lift, 1e-4)
    far = np.minimum(far, 200 * scene.eye_height_m + 3000)
    x = scene.camera.position[0] + rays[..., 0] * far
    y = scene.camera.position[1] + rays[..., 1] * far
    return x.astype(np.float32), y.astype(np.float32), far.astype(np.float32)


def _line(coordinate: Floats, width: float, footprint: Floats) -> Floats:
    """Cover 0..1 of a painted line of `width` metres about 0, thinned where pixels are wider than it."""
    soft = np.maximum(footprint, 0.02)
    return np.clip((width / 2 + soft / 2 - np.abs(coordinate)) / soft, 0, 1) * np.minimum(1, width / soft + 0.15)


def _airfield(rng: np.random.Generator, scene: Scene, rays: Floats, lift: Floats) -> Floats:
    """Concrete or asphalt with joints, markings and stains, and mown grass beyond."""
    x, y, far = _ground_points(scene, rays, lift)
    metre_px = scene.camera.focal_px / np.maximum(far, 1)
    # A pixel's depth on the ground grows with the square of the distance.
    footprint = far * far / (scene.eye_height_m * scene.camera.focal_px)
    offset = rng.uniform(0, 256, 4)
    coarse = _read_noise(x * 2.2 + offset[0], y * 2.2 + offset[1])
    fine = _read_noise(x * 17 + offset[2], y * 17 + offset[3]) * np.clip(metre_px / 6, 0, 1)
    apron = scene.place == "apron"
    grey = rng.uniform(118, 168) if apron else rng.uniform(82, 120)
    tint = (np.array([1.0, 0.99, 0.95]) + rng.normal(0, 0.012, 3)).astype(np.float32)
    paved = np.float32(grey) + coarse * 6 + fine * 4
    thin = np.clip(1.2 - footprint / 9, 0, 1)
    if apron:
        pitch = rng.uniform(5, 8)
        for coordinate in (x, y):
            joint = np.mod(coordinate + offset[0], pitch) - pitch / 2
            paved = paved - 26 * _line(joint, 0.10, footprint if coordinate is y else 1 / metre_px) * thin
    paved = paved - 30 * np.exp(-((y / 2.5) ** 2)) * np.clip(coarse * 0.5 + 0.4, 0, 1)
    image: Floats = paved[..., None] * tint
    yellow = _line(y, 0.35, footprint) * 0.9
    image += (_YELLOW - image) * yellow[..., None]
    half_width = rng.uniform(30, 70) if apron else rng.uniform(11, 22)
    if not apron:
        edge = _line(np.abs(y) - half_width + 1.5, 0.4, footprint) * 0.8
        image += ((_WHITE if rng.random() < 0.5 else _YELLOW) - image) * edge[..., None]
    ragged = np.abs(y) + coarse * 0.25 + fine * 0.25
    soft = np.maximum(footprint, 0.3)
    grass_share = np.clip((ragged - half_width) / soft + 0.5, 0, 1)[..., None]
    green = _jittered(rng, (92, 108, 58), 9)
    blend = np.clip(np.float32(0.35 + rng.uniform(-0.3, 0.4)) + np.float32(0.22) * coarse, 0, 1)[..., None]
    grass = green + (_DRY - green) * blend + (fine * 13 + coarse * 5)[..., None]
    image += (grass - image) * grass_share
    image *= np.float32(1 - float(scene.overcast) * 0.12)
    away = np.clip(1 - np.exp(-far / 900), 0, 0.75)[..., None]
    image += (scene.horizon_colour - image) * away
    return image


def _fields(rng: np.random.Generator, scene: Scene, rays: Floats, lift: Floats) -> Floats:
    """Open country seen from the air, or the foreground under a landing aircraft."""
    x, y, far = _ground_points(scene, rays, lift)
    scale = 1.4 if scene.eye_height_m < 100 else 0.12
    offset = rng.uniform(0, 256, 2)
    noise = _read_noise(x * scale + offset[0], y * scale + offset[1])
    colour = _jittered(rng, (96, 108, 66), 8) + noise[..., None] * np.array([14, 12, 8], np.float32)
    away = np.clip(1 - np.exp(-far / (10 * scene.eye_height_m + 600)), 0, 0.85)[..., None]
    return np.asarray(colour + (scene.horizon_colour - colour) * away, np.float32)


def _cast_shadow(scene: Scene, image: Floats) -> None:
    """Darken the ground where the aircraft keeps the sun (or, under cloud, the sky) off it."""
    size = image.shape[0]
    corners = scene.mesh.corners[::2] if scene.overcast else scene.mesh.corners
    sun = scene.light.sun
    drop = (corners[..., 2] - scene.ground_z_m) / max(float(sun[2]), 0.2)
    on_ground = corners - drop[..., None] * sun
    facing = (scene.mesh.facing[:: 2 if scene.overcast else 1] @ sun) > 0
    points, depth = scene.camera.project(on_ground[facing].reshape(-1, 3))
    quads = points.reshape(-1, 4, 2)
    if depth.min() < 1.0:
        quads = quads[depth.reshape(-1, 4).min(axis=1) > 1.0]
    shadow = silhouette(quads, size).astype(np.float32) / 255
    softness = size * (0.035 if scene.overcast else 0.004)
    soft = cv2.GaussianBlur(shadow, (0, 0), max(softness, 0.45), sigmaY=max(0.45, softness * 0.35))
    image *= 1 - (0.42 if scene.overcast else 0.58) * soft[..., None]
