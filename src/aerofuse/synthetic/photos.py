"""Drawing photos with their labels, each a pure function of fleet, index, config, size and seed."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator
from functools import partial

import cv2
import numpy as np
import numpy.typing as npt

from aerofuse.data.photo import Photo
from aerofuse.synthetic.assembly import aircraft_mesh
from aerofuse.synthetic.background import background
from aerofuse.synthetic.degradation import degrade, sample_degradation
from aerofuse.synthetic.fleet import Airframe, Fleet
from aerofuse.synthetic.mesh import Floats
from aerofuse.synthetic.occluders import occlude, sample_target
from aerofuse.synthetic.paint import texture
from aerofuse.synthetic.params import SyntheticParams
from aerofuse.synthetic.render import SUPERSAMPLING, Layer, render
from aerofuse.synthetic.scene import sample_scene

MIN_SIZE_PX = 32


def draw_photos(
    fleet: Fleet, indices: Iterable[int], config: SyntheticParams, image_size_px: int, seed: int, processes: int = 1
) -> Iterator[Photo]:
    """Draw the photos of these indices, in this order, in so many processes."""
    draw = partial(draw_photo, fleet, config=config, image_size_px=image_size_px, seed=seed)
    if processes <= 1:
        yield from map(draw, indices)
        return
    # Spawned, not forked: the caller may hold threads (OpenCV's, torch's) that do not survive a fork.
    with multiprocessing.get_context("spawn").Pool(processes, cv2.setNumThreads, (1,)) as pool:
        yield from pool.imap(draw, indices, chunksize=16)


def draw_photo(fleet: Fleet, index: int, config: SyntheticParams, image_size_px: int, seed: int) -> Photo:
    """Draw photo number `index`, `image_size_px` square; the same bytes in every process and order.

    Raises `ValueError` where the size is too small to show an aircraft, or the index is negative.
    """
    if image_size_px < MIN_SIZE_PX or index < 0:
        raise ValueError(
            f"image_size_px = {image_size_px}, index = {index}: "
            f"need a size of at least {MIN_SIZE_PX} and an index of 0 or more"
        )
    rng = np.random.default_rng([seed, index])
    airframe = _any_airframe(rng, fleet)
    aircraft, livery = fleet.types[airframe.type_index], fleet.liveries[airframe.livery_index]
    scene = sample_scene(rng, aircraft_mesh(aircraft), config, image_size_px)
    behind = background(rng, scene, image_size_px)
    halvings = _halvings(scene.camera.focal_px * aircraft.length_m / float(np.linalg.norm(scene.camera.position)))
    plane = render(scene.mesh, texture(aircraft, livery, halvings), scene.camera, scene.light, image_size_px)
    target = sample_target(rng, config.occluded_fraction, config.max_block)
    before = occlude(rng, scene, fleet, plane.mask, target, config.max_block)
    image = _composed(behind, (plane, before))
    how = sample_degradation(rng, config.degradation)
    return Photo(
        image=degrade(rng, image, how),
        filename=photo_filename(index),
        typename=aircraft.name,
        airlinename=livery.name,
        clarity=how.clarity,
        block=hidden_share(plane.mask, before.mask),
        registration=airframe.registration,
    )


def hidden_share(aircraft: npt.NDArray[np.bool_], occluders: npt.NDArray[np.bool_]) -> float:
    """Return `block`: the aircraft's pixels that occluders cover, over all its pixels; both masks [N, N]."""
    return float((aircraft & occluders).sum() / aircraft.sum())


def photo_filename(index: int) -> str:
    """Return the name of photo number `index` in the label table."""
    return f"{index:06d}.png"


def photo_airframe(fleet: Fleet, index: int, seed: int) -> Airframe:
    """Return the airframe that photo number `index` shows, without drawing it."""
    return _any_airframe(np.random.default_rng([seed, index]), fleet)


def _any_airframe(rng: np.random.Generator, fleet: Fleet) -> Airframe:
    return fleet.airframes[int(rng.integers(len(fleet.airframes)))]


def _halvings(length_px: float) -> int:
    """How often to halve the texture for a fuselage about so many photo pixels long."""
    texels_per_pixel = 512 / max(length_px * SUPERSAMPLING, 1)
    return int(np.clip(np.round(np.log2(texels_per_pixel)), 0, 2))


def _composed(behind: Floats, layers: tuple[Layer, ...]) -> Floats:
    """Background [S, S, 3] under supersampled layers, nearest last, edges smoothed by averaging."""
    size = behind.shape[0]
    shape = layers[0].mask.shape
    colour, mask = np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.uint8)
    for layer in layers:
        shown = layer.mask.view(np.uint8) * np.uint8(255)
        cv2.copyTo(layer.colour, shown, colour)
        mask |= shown
    small = cv2.resize(colour, (size, size), interpolation=cv2.INTER_AREA)
    cover = cv2.resize(mask, (size, size), interpolation=cv2.INTER_AREA)
    around = (1 - cover.astype(np.float32) / 255)[..., None]
    return (behind * around + small).astype(np.float32)
