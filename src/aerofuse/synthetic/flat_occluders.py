"""Drawing occluders that are flat: poles, fences, trees, walls, wires.

Shading has half the resolution of the mask: that of the photo.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from aerofuse.synthetic.background import smooth_noise
from aerofuse.synthetic.mesh import Floats
from aerofuse.synthetic.scene import Scene

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Sprite:
    """A cut-out `colour` [h, w, 3] uint8 with `mask` [h, w], in supersampled pixels.

    One that `slides` may be moved sideways, its foot on the photo's lower edge; the others fill the photo's canvas.
    """

    colour: npt.NDArray[np.uint8]
    mask: Mask
    slides: bool


def _finished(scene: Scene, colour: Floats, rows: int, columns: int, haze: float = 0.5) -> npt.NDArray[np.uint8]:
    """A surface colour [h, w, 3] under the scene's light and a little of its haze, brought to size."""
    strength = (scene.light.sky_colour * 0.62 + scene.light.sun_colour * 0.55) * (1 - scene.light.haze * haze)
    veil = scene.horizon_colour * (scene.light.haze * haze)
    lit = colour.astype(np.float32) * strength.astype(np.float32) + veil.astype(np.float32)
    done: npt.NDArray[np.uint8] = np.clip(lit, 0, 255).astype(np.uint8)
    if done.shape[:2] != (rows, columns):
        done = np.asarray(cv2.resize(done, (columns, rows), interpolation=cv2.INTER_LINEAR), np.uint8)
    return done


def _pick(rng: np.random.Generator, *colours: tuple[int, int, int]) -> Floats:
    return np.array(colours[int(rng.integers(len(colours)))], np.float32)


def _grid(rows: int, columns: int) -> tuple[Floats, Floats]:
    """Row [rows, 1] and column [1, columns] coordinates."""
    return np.arange(rows, dtype=np.float32)[:, None], np.arange(columns, dtype=np.float32)[None]


def _level(aircraft: Mask, share: float, axis: int, from_end: bool) -> float:
    """Where a straight edge must lie (0..1 of the photo) to hide `share` of the aircraft's pixels behind it."""
    sums = cv2.reduce(aircraft.view(np.uint8), axis, cv2.REDUCE_SUM, dtype=cv2.CV_32S)
    cumulated = np.cumsum(sums.ravel())
    wanted = (1 - share if from_end else share) * cumulated[-1]
    return float(np.searchsorted(cumulated, wanted)) / len(cumulated)


def pole(rng: np.random.Generator, scene: Scene, aircraft: Mask, target: float) -> Sprite:
    """Draw round lamp posts or masts, more and thicker ones for a larger share."""
    size = aircraft.shape[0]
    thick = size * np.clip(target * rng.uniform(0.25, 0.8), 0.014, 0.10)
    count = int(np.clip(round(target * size * 0.9 / thick), 1, 6))
    width = size if count > 1 else int(thick * 6) // 2 * 2
    paint = _pick(rng, (168, 170, 172), (120, 118, 112), (108, 84, 60), (70, 84, 74))
    lit_side, lean = rng.choice([-1.0, 1.0]), rng.normal(0, 0.012)
    centres = width * (np.arange(count) + 0.5) / count + rng.uniform(-0.15, 0.15, count) * width / count * (count > 1)
    y, x = _grid(size, width)
    half = thick / 2 * (1 - 0.3 * (1 - y / size))
    nearest = np.full((size, width), 9.0, np.float32)
    for centre in centres:
        offset = (x + 0.5 - np.float32(centre) - np.float32(lean) * (y - size / 2)) / half
        nearest = np.where(np.abs(offset) < np.abs(nearest), offset, nearest)
    shading = nearest[::2, ::2] - np.float32(0.45 * lit_side)
    light = 0.45 + 0.75 * np.sqrt(np.clip(1 - 0.62 * shading * shading, 0, 1))
    light = light + 0.03 * smooth_noise(rng, light.shape[0], light.shape[1], (3, 14), 3)
    return Sprite(_finished(scene, paint * light[..., None], size, width), np.abs(nearest) <= 1, slides=True)


def fence(rng: np.random.Generator, scene: Scene, aircraft: Mask, target: float) -> Sprite:
    """Draw chain-link or railings between posts, over the whole width."""
    size = aircraft.shape[0]
    wire = size * rng.uniform(0.006, 0.010)
    share = float(np.clip(target, 0.06, 0.5))
    y, x = _grid(size, size)
    sag = cv2.resize(smooth_noise(rng, size // 2, size // 2, (2, 2), 2), (size, size)) * np.float32(wire * 0.6)
    if rng.random() < 0.65:
        # Two families of wires each hide half the share: a period of 2 w / share across the wires.
        pitch = np.float32(2 * wire / share * 1.4142)
        first, second = np.mod(x + y + sag, pitch), np.mod(x - y + sag, pitch)
        distance = np.minimum(np.abs(first - pitch / 2), np.abs(second - pitch / 2)) * np.float32(0.7071)
    else:
        wire *= 1.8
        pitch = np.float32(wire / share)
        distance = np.abs(np.mod(x + sag * np.float32(0.2), pitch) - pitch / 2)
    top = size * rng.uniform(-0.1, 0.35)
    post_pitch = np.float32(size * rng.uniform(0.5, 0.9))
    post = np.abs(np.mod(x + np.float32(rng.uniform(0, 1)) * post_pitch, post_pitch) - post_pitch / 2)
    half = np.float32(wire * 1.5)
    rail = (np.abs(y - np.float32(top)) < half) | ((post < half) & (y > top))
    mask = ((distance < wire / 2) & (y > top)) | rail
    shade = np.where(rail, 0.75 + 0.35 * np.clip(1 - post / half, 0, 1), 0.7 + 0.4 * (1 - distance / wire).clip(0, 1))
    colour = shade[..., None] * np.array([0.98, 1.0, 1.0], np.float32) * np.float32(rng.uniform(95, 190))
    return Sprite(_finished(scene, colour, size, size), mask, slides=False)


def _foliage(
    rng: np.random.Generator, scene: Scene, body: Floats, rows: int, columns: int
) -> tuple[npt.NDArray[np.uint8], Mask]:
    """Leaves where `body` (at half size) plus fine noise is positive, lit from above in clumps."""
    high, wide = body.shape
    clumps = smooth_noise(rng, high, wide, (wide / 14 + 1, high / 12 + 1), 2)
    leaves = rng.standard_normal((high, wide), dtype=np.float32)
    ragged = smooth_noise(rng, high, wide, (wide / 3.5, high / 3.5), 1)
    field = body + 0.15 * clumps + 0.20 * ragged
    lit = clumps - np.roll(clumps, -max(2, high // 30), axis=0)
    shade = 0.86 + 0.20 * np.clip(0.3 - lit, -1.4, 1.4) + 0.15 * np.clip(ragged, -1.5, 1.5) + 0.10 * leaves
    shade = shade * (1 - 0.30 * np.clip(field - 0.1, 0, 1))
    green = _pick(rng, (88, 112, 48), (104, 120, 58), (70, 98, 56), (120, 116, 62))
    tint = 1 + 0.06 * clumps[..., None] * np.array([1.0, 0.4, -0.4], np.float32)
    mask = cv2.resize(field, (columns, rows), interpolation=cv2.INTER_LINEAR) > 0
    return _finished(scene, green * shade[..., None] * tint, rows, columns), mask


def tree(rng: np.random.Generator, scene: Scene, aircraft: Mask, target: float) -> Sprite:
    """Draw a tree: trunk, boughs, and a ragged crown with gaps."""
    size = aircraft.shape[0]
    height = int(size * np.clip(0.75 + 0.9 * target, 0.75, 1.35)) // 2 * 2
    width = int(height * rng.uniform(0.45, 0.8) * np.clip(0.5 + 1.2 * target, 0.6, 1.3)) // 2 * 2
    y, x = _grid(height // 2, width // 2)
    body = np.full((height // 2, width // 2), -9.0, np.float32)
    wood = np.zeros((height, width), np.uint8)
    foot = (int(width * rng.uniform(0.42, 0.58)), height - 1)
    fork = (int(foot[0] + rng.normal(0, 0.03) * width), int(height * rng.uniform(0.55, 0.7)))
    thick = max(2, int(0.045 * width))
    cv2.line(wood, foot, fork, 255, thick, cv2.LINE_8)
    for _ in range(int(rng.integers(7, 12))):
        cx, cy = width * rng.uniform(0.20, 0.80), height * rng.uniform(0.13, 0.62)
        rx, ry = width * rng.uniform(0.13, 0.25), height * rng.uniform(0.09, 0.17)
        across, up = (2 * x - np.float32(cx)) / np.float32(rx), (2 * y - np.float32(cy)) / np.float32(ry)
        blob = 1 - np.square(across) - np.square(up)
        body = np.maximum(body, 0.75 * blob)
        cv2.line(wood, fork, (int(cx), int(cy)), 255, max(1, thick // 2), cv2.LINE_8)
    colour, leaves = _foliage(rng, scene, np.clip(body, -1, 1), height, width)
    bark = _finished(scene, np.full((1, 1, 3), [84, 70, 56], np.float32) * np.float32(rng.uniform(0.8, 1.2)), 1, 1)
    colour = np.where(leaves[..., None], colour, bark)
    above = max(size - height, 0)
    return Sprite(
        np.pad(colour, ((above, 0), (0, 0), (0, 0))), np.pad(leaves | (wood > 0), ((above, 0), (0, 0))), slides=True
    )


def branches(rng: np.random.Generator, scene: Scene, aircraft: Mask, target: float) -> Sprite:
    """Draw boughs that hang into the photo from above, or leaves that reach in from one side."""
    size = aircraft.shape[0]
    y, x = _grid(size // 2, size // 2)
    y, x = y / (size // 2), x / (size // 2)
    if rng.random() < 0.5:
        edge = smooth_noise(rng, 1, size // 2, (3, 1), 3) * np.float32(0.05)
        edge = edge + np.float32(rng.uniform(-0.15, 0.15)) * (x - 0.5)
        body = (np.float32(_level(aircraft, target, 1, False)) + edge - y) * 3.0
    else:
        edge = smooth_noise(rng, 1, size // 2, (3, 1), 3).T * np.float32(0.07)
        right = rng.random() < 0.5
        reach = np.float32(_level(aircraft, target, 0, right))
        body = ((x - reach) if right else (reach - x)) * 3.0 + edge * 3.0
    colour, mask = _foliage(rng, scene, np.clip(body, -1, 0.6), size, size)
    return Sprite(colour, mask, slides=False)


def hedge(rng: np.random.Generator, scene: Scene, aircraft: Mask, target: float) -> Sprite:
    """Draw bushes along the lower edge."""
    size = aircraft.shape[0]
    y, _ = _grid(size // 2, size // 2)
    y = y / (size // 2)
    edge = smooth_noise(rng, 1, size // 2, (4, 1), 4) * np.float32(0.025)
    depth = y - np.float32(_level(aircraft, target, 1, True)) + edge
    colour, mask = _foliage(rng, scene, np.clip(depth * 5.0, -1, 0.7), size, size)
    return Sprite(colour, mask, slides=False)


def wall(rng: np.random.Generator, scene: Scene, aircraft: Mask, target: float) -> Sprite:
    """Draw the corner of a hangar or terminal that cuts into the photo from one side."""
    size = aircraft.shape[0]
    half = size // 2
    right = rng.random() < 0.5
    edge = _level(aircraft, target, 0, right)
    edge = 1 - edge if right else edge
    y, x = _grid(half, half)
    y, x = y / half, x / half
    x = x + np.float32(max(1.0 - edge, 0))  # the building's own coordinate, its corner at 1
    turned = 1 - rng.uniform(0.08, 0.22)
    pitch, seam = rng.uniform(0.08, 0.16), 0.007
    slant = y + np.float32(rng.uniform(-0.06, 0.06)) * x
    light = np.where(x > turned, np.float32(rng.uniform(0.5, 0.75)), np.float32(1.0))
    light = light * (1 - 0.16 * (np.mod(x, pitch * 1.6) < seam)) * (1 - 0.16 * (np.mod(slant, pitch) < seam))
    light = light + smooth_noise(rng, half, half, (4, 4), 3) * np.float32(0.03)
    if rng.random() < 0.5:
        floor = np.mod(slant, pitch * 3)
        panes = (floor < pitch) & (x < turned) & (np.mod(x, pitch * 1.6) > 3 * seam)
        light = np.where(panes, 0.34 + 0.2 * floor / pitch, light)
    paint = _pick(rng, (176, 178, 180), (150, 140, 126), (196, 192, 182), (112, 122, 132))
    colour = _finished(scene, paint * light[..., None], size, size)
    mask = np.zeros((size, size), np.bool_)
    mask[:, : round(edge * size)] = True
    if right:
        colour, mask = np.ascontiguousarray(colour[:, ::-1]), np.ascontiguousarray(mask[:, ::-1])
    return Sprite(colour, mask, slides=False)


def barrier(rng: np.random.Generator, scene: Scene, aircraft: Mask, target: float) -> Sprite:
    """Draw a blast fence or concrete barrier along the lower part."""
    size = aircraft.shape[0]
    half = size // 2
    top = _level(aircraft, target, 1, True)
    y, x = _grid(half, half)
    y, x = y / half - np.float32(top), x / half
    bay = rng.uniform(0.14, 0.3)
    light = 0.78 + 0.10 * np.sin(2 * np.pi * x / bay) + smooth_noise(rng, half, half, (6, 6), 3) * np.float32(0.03)
    light = np.where(np.mod(x, bay) < 0.012, 0.5, light)
    striped = rng.random() < 0.4
    if not striped:
        light = light + 0.10 * np.sin(2 * np.pi * y / 0.035)
    light = np.where(y < 0.025, 1.15, light)
    colour = _pick(rng, (188, 186, 180), (168, 174, 178), (150, 152, 150)) * light[..., None].astype(np.float32)
    if striped:
        bands = (np.mod(x + y, bay) < bay / 2) & (y < 0.14) & (y > 0.025)
        colour = np.where(bands[..., None], np.array([196, 60, 48], np.float32) * light[..., None], colour)
    mask = np.zeros((size, size), np.bool_)
    mask[round(top * size) :] = True
    return Sprite(_finished(scene, colour, size, size), mask, slides=False)


def wires(rng: np.random.Generator, scene: Scene, aircraft: Mask, target: float) -> Sprite:
    """Draw sagging cables of a power line across the aircraft."""
    size = aircraft.shape[0]
    mask = np.zeros((size, size), np.uint8)
    share = np.linspace(-0.05, 1.05, 24)
    level, tilt = _level(aircraft, rng.uniform(0.2, 0.8), 1, False), rng.normal(0, 0.08)
    sag = rng.uniform(0.0, 0.06)
    thick = max(1, round(size * float(np.clip(target, 0.006, 0.02)) * 0.5))
    for k in range(int(rng.integers(2, 6))):
        rows = level + 0.06 * (k - 1.5) + tilt * (share - 0.5) - sag * 4 * (share * (share - 1) + 0.25)
        line = np.round(np.stack([share, rows], 1) * size * 16).astype(np.int32)
        cv2.polylines(mask, [line], False, 255, thick, cv2.LINE_8, 4)
    colour = _finished(scene, np.full((1, 1, 3), 52.0, np.float32), 1, 1, haze=1.0)
    return Sprite(np.broadcast_to(colour, (size, size, 3)), mask > 0, slides=False)
