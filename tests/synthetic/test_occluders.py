"""Every occluder hides something, from anywhere, and `block` is what the masks say."""

from __future__ import annotations

import numpy as np
import pytest

from aerofuse.synthetic.assembly import aircraft_mesh
from aerofuse.synthetic.fleet import built_in_fleet
from aerofuse.synthetic.occluders import CLEAR_BLOCK, OCCLUDERS, OTHER_AIRCRAFT, draw_occluder, occlude, sample_target
from aerofuse.synthetic.paint import texture
from aerofuse.synthetic.params import SyntheticParams
from aerofuse.synthetic.photos import hidden_share
from aerofuse.synthetic.render import SUPERSAMPLING, Layer, render
from aerofuse.synthetic.scene import Scene, sample_scene
from aerofuse.synthetic.vehicles import VEHICLES, vehicle_mesh

SIZE_PX = 64
FLEET = built_in_fleet(24, seed=0)


def staged(seed: int, flying: float = 0.0) -> tuple[Scene, Layer]:
    """A scene with its aircraft."""
    config = SyntheticParams(flying_fraction=flying)
    aircraft = FLEET.types[seed % len(FLEET.types)]
    scene = sample_scene(np.random.default_rng(seed), aircraft_mesh(aircraft), config, SIZE_PX)
    return scene, render(scene.mesh, texture(aircraft, FLEET.liveries[0], 1), scene.camera, scene.light, SIZE_PX)


@pytest.mark.parametrize("name", [*OCCLUDERS, OTHER_AIRCRAFT])
def test_occluder_is_a_coloured_cut_out(name: str) -> None:
    covered = 0
    for seed in range(4):
        scene, plane = staged(seed)
        sprite = draw_occluder(np.random.default_rng(seed), name, scene, FLEET, plane.mask, 0.15)
        assert sprite.colour.shape == (*sprite.mask.shape, 3)
        if sprite.mask.any():
            covered += 1
            # Nothing here is flat: light and texture vary over it (wires are too thin to).
            assert name == "wires" or sprite.colour[sprite.mask].std() > 2
    assert covered >= 3


def test_unknown_occluder_is_refused() -> None:
    scene, plane = staged(0)
    with pytest.raises(ValueError, match=r"known: pole.*other aircraft"):
        draw_occluder(np.random.default_rng(0), "zeppelin", scene, FLEET, plane.mask, 0.1)


@pytest.mark.parametrize("kind", VEHICLES)
def test_vehicle_stands_on_the_ground(kind: str) -> None:
    low = vehicle_mesh(kind).corners.reshape(-1, 3).min(axis=0)
    assert low[2] == pytest.approx(0.0, abs=0.05)
    assert 1.4 < vehicle_mesh(kind).extent_m[2] < 6


@pytest.mark.parametrize("flying", [0.0, 1.0])
def test_the_hidden_share_follows_the_target(flying: float) -> None:
    targets, shares = [], []
    for seed in range(24):
        scene, plane = staged(seed, flying)
        target = 0.75 * (seed + 1) / 24
        before = occlude(np.random.default_rng(seed), scene, FLEET, plane.mask, target, 0.8)
        targets.append(target)
        shares.append(hidden_share(plane.mask, before.mask))
    assert max(shares) <= 0.8
    assert np.corrcoef(targets, shares)[0, 1] > 0.9


def test_no_target_no_occluder_and_a_small_one_stays_small() -> None:
    for seed in range(12):
        scene, plane = staged(seed)
        assert not occlude(np.random.default_rng(seed), scene, FLEET, plane.mask, 0.0, 0.8).mask.any()
        little = occlude(np.random.default_rng(seed), scene, FLEET, plane.mask, 0.04, 0.8)
        assert hidden_share(plane.mask, little.mask) <= CLEAR_BLOCK


def test_hidden_share_counts_pixels() -> None:
    aircraft, other = np.zeros((2, 8, 8), np.bool_)
    aircraft[2:6, 2:6] = True
    other[4:] = True
    assert hidden_share(aircraft, other) == 0.5


def test_targets_are_spread() -> None:
    rng = np.random.default_rng(0)
    targets = np.array([sample_target(rng, 0.5, 0.8) for _ in range(4000)])
    assert (targets < CLEAR_BLOCK).mean() == pytest.approx(0.5, abs=0.03)
    counts, _ = np.histogram(targets, 5, (0.05, 0.8))
    assert counts.min() > 4000 * 0.5 * 0.08


def test_the_subject_lies_wholly_in_the_frame() -> None:
    for seed in range(60):
        _, plane = staged(seed, flying=0.5)
        edges = (plane.mask[0], plane.mask[-1], plane.mask[:, 0], plane.mask[:, -1])
        assert not any(edge.any() for edge in edges)
        assert plane.mask.shape == (SIZE_PX * SUPERSAMPLING, SIZE_PX * SUPERSAMPLING)
