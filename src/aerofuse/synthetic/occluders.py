"""Choosing and placing what hides part of an aircraft: a share is aimed at, then counted from masks."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from aerofuse.synthetic.flat_occluders import Mask, Sprite, barrier, branches, fence, hedge, pole, tree, wall, wires
from aerofuse.synthetic.fleet import Fleet
from aerofuse.synthetic.render import Layer
from aerofuse.synthetic.scene import Scene
from aerofuse.synthetic.solid_occluders import jet_bridge, other_aircraft, vehicle

Draw = Callable[[np.random.Generator, Scene, Mask, float], Sprite]

# name: (draw, least and largest share it is used for, in flight as well as on the ground, relative frequency)
OCCLUDERS: dict[str, tuple[Draw, float, float, bool, float]] = {
    "pole": (pole, 0.0, 0.65, True, 1.4),
    "fence": (fence, 0.08, 0.55, True, 1.2),
    "tree": (tree, 0.05, 0.80, False, 1.2),
    "branches": (branches, 0.03, 0.80, True, 0.9),
    "hedge": (hedge, 0.05, 0.60, False, 0.7),
    "wall": (wall, 0.05, 0.80, True, 0.5),
    "barrier": (barrier, 0.02, 0.50, False, 0.5),
    "wires": (wires, 0.0, 0.15, True, 0.7),
    "vehicle": (vehicle, 0.02, 0.60, False, 1.8),
    "jet bridge": (jet_bridge, 0.05, 0.40, False, 0.9),
}
# Needs a fleet to choose from, so it is called with one.
OTHER_AIRCRAFT = "other aircraft"
ON_APRON = frozenset({"vehicle", "jet bridge", OTHER_AIRCRAFT})
# Photos that count as unoccluded hide less than this.
CLEAR_BLOCK = 0.05
_OTHER_RANGE, _OTHER_FREQUENCY = (0.05, 0.50), 0.6
_COARSE = 4
_PLACES = 33
_TOWARDS_SMALL = 1.5
_ATTEMPTS = 4


def sample_target(rng: np.random.Generator, occluded_fraction: float, max_block: float) -> float:
    """Draw the hidden share to aim at: 0.05 .. `max_block` for the occluded share, below 0.05 for the rest.

    Small shares are somewhat likelier than large ones (the power of a uniform draw), as at an airfield's fence.
    """
    if rng.random() < occluded_fraction:
        return float(CLEAR_BLOCK + (max_block - CLEAR_BLOCK) * rng.random() ** _TOWARDS_SMALL)
    return float(max(0.0, rng.uniform(-CLEAR_BLOCK, 0.9 * CLEAR_BLOCK)))


def occlude(
    rng: np.random.Generator, scene: Scene, fleet: Fleet, aircraft: Mask, target: float,
    max_block: float,
) -> Layer:  # fmt: skip
    """Draw occluders [N, N] that hide about `target` of the aircraft's mask, never more than `max_block`.

    A target up to `CLEAR_BLOCK` is never exceeded beyond it.
    """
    size = aircraft.shape[0]
    colour = np.zeros((size, size, 3), np.uint8)
    mask = np.zeros((size, size), np.bool_)
    if target <= 0:
        return Layer(colour, mask)
    pixels = np.count_nonzero(aircraft)
    most = max_block if target > CLEAR_BLOCK else CLEAR_BLOCK
    for _ in range(_ATTEMPTS):
        missing = target - np.count_nonzero(mask & aircraft) / pixels
        if missing < max(0.02, 0.08 * target):
            break
        visible = aircraft & ~mask
        share = float(missing) * pixels / max(int(np.count_nonzero(visible)), 1)
        name = _choose(rng, scene, share)
        sprite = draw_occluder(rng, name, scene, fleet, visible, share)
        x, y = _best_place(rng, sprite, visible, share)
        added = _placed(sprite, size, x, y)
        if np.count_nonzero((mask | added.mask) & aircraft) > most * pixels:
            continue
        # What stands on the apron is farther away than what the photographer looks past.
        shown = added.mask & ~mask if name in ON_APRON else added.mask
        cv2.copyTo(added.colour, shown.view(np.uint8), colour)
        mask |= added.mask
    return Layer(colour, mask)


def draw_occluder(
    rng: np.random.Generator, name: str, scene: Scene, fleet: Fleet, aircraft: Mask, target: float
) -> Sprite:
    """Draw the occluder `name`, sized to hide about `target` of the aircraft's mask [N, N].

    Raises `ValueError` for an unknown name.
    """
    if name == OTHER_AIRCRAFT:
        other = fleet.types[int(rng.integers(len(fleet.types)))]
        livery = fleet.liveries[int(rng.integers(len(fleet.liveries)))]
        return other_aircraft(rng, scene, aircraft, target, other, livery)
    if name not in OCCLUDERS:
        raise ValueError(f"unknown occluder {name!r}; known: {', '.join([*OCCLUDERS, OTHER_AIRCRAFT])}")
    return OCCLUDERS[name][0](rng, scene, aircraft, target)


def _choose(rng: np.random.Generator, scene: Scene, target: float) -> str:
    names, weights = [], []
    for name, (_, least, largest, airborne, frequency) in OCCLUDERS.items():
        if least <= target <= largest and (airborne or scene.on_ground):
            names.append(name)
            weights.append(frequency)
    if scene.on_ground and _OTHER_RANGE[0] <= target <= _OTHER_RANGE[1]:
        names.append(OTHER_AIRCRAFT)
        weights.append(_OTHER_FREQUENCY)
    share = np.cumsum(weights) / sum(weights)
    return names[int(np.searchsorted(share, rng.random()))]


def _best_place(rng: np.random.Generator, sprite: Sprite, aircraft: Mask, target: float) -> tuple[int, int]:
    """Offset (x, y) of the sprite, among places along its slide, whose hidden share is nearest the target.

    The search counts every fourth pixel; about equally good places are equally likely.
    """
    if not sprite.slides:
        return 0, 0
    coarse, shape = aircraft[::_COARSE, ::_COARSE], sprite.mask[::_COARSE, ::_COARSE]
    size = coarse.shape[0]
    rows, columns = shape.shape
    pixels = max(int(np.count_nonzero(coarse)), 1)
    y = size - rows
    # A sprite cut off at its canvas must not be slid away from that edge: the cut would show.
    first = -columns + 1 if not shape[:, -1].any() else size - columns
    last = size - 1 if not shape[:, 0].any() else 0
    places = np.linspace(first, max(last, first), _PLACES).astype(int)
    best, best_miss = int(places[0]), np.inf
    for x in rng.permutation(places).tolist():
        left, right = max(x, 0), min(x + columns, size)
        if left >= right:
            continue
        covered = shape[max(-y, 0) :, left - x : right - x] & coarse[max(y, 0) :, left:right]
        miss = abs(np.count_nonzero(covered) / pixels - target)
        if miss < best_miss - 0.01:
            best, best_miss = x, miss
    return best * _COARSE, y * _COARSE


def _placed(sprite: Sprite, size: int, x: int, y: int) -> Layer:
    """The sprite on the photo's canvas, its corner at (x, y)."""
    rows, columns = sprite.mask.shape
    if (x, y, rows, columns) == (0, 0, size, size):
        return Layer(sprite.colour, sprite.mask)
    colour = np.zeros((size, size, 3), np.uint8)
    mask = np.zeros((size, size), np.bool_)
    top, bottom = max(y, 0), min(y + rows, size)
    left, right = max(x, 0), min(x + columns, size)
    if top < bottom and left < right:
        colour[top:bottom, left:right] = sprite.colour[top - y : bottom - y, left - x : right - x]
        mask[top:bottom, left:right] = sprite.mask[top - y : bottom - y, left - x : right - x]
    return Layer(colour, mask)
