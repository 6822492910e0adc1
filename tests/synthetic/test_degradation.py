"""Clarity is exact, falls with every loss, and spreads over its range."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from aerofuse.synthetic.degradation import Degradation, degrade, sample_degradation

# Each from untouched to badly spoilt.
LADDERS = {
    "blur": [Degradation(blur=value) for value in (0.0, 0.006, 0.009, 0.014)],
    "noise": [Degradation(noise=value) for value in (0.0, 4.0, 10.0, 22.0)],
    "resolution": [Degradation(resolution=value) for value in (1.0, 0.85, 0.65, 0.5)],
    "JPEG": [Degradation(jpeg_quality=value) for value in (None, 85, 70, 45, 20)],
}
SPOILT = Degradation(blur=0.002, noise=3.0, resolution=0.95, jpeg_quality=85)
every_loss = pytest.mark.parametrize("loss", LADDERS)


def detailed_image() -> np.ndarray:
    """Fine detail on a ramp, [64, 64, 3] float 0..255."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(40, 200, 64)[None, :, None]
    return (ramp + 30 * rng.standard_normal((64, 64, 3))).clip(0, 255).astype(np.float32)


@every_loss
def test_clarity_falls_with_every_step(loss: str) -> None:
    clarity = [how.clarity for how in LADDERS[loss]]
    assert clarity[0] == 1.0
    assert all(later < earlier for earlier, later in pairwise(clarity))


@every_loss
def test_clarity_falls_in_company_too(loss: str) -> None:
    field = {"JPEG": "jpeg_quality"}.get(loss, loss)
    mixed = [replace(SPOILT, **{field: getattr(how, field)}).clarity for how in LADDERS[loss]]
    assert all(later < earlier for earlier, later in pairwise(mixed))


@every_loss
def test_the_image_moves_away_from_the_original(loss: str) -> None:
    original = detailed_image()
    errors = [np.abs(degrade(np.random.default_rng(1), original, how) - original).mean() for how in LADDERS[loss]]
    assert all(later > earlier for earlier, later in pairwise(errors))


def test_an_untouched_image_is_clear_and_equal() -> None:
    original = detailed_image()
    assert Degradation().clarity == 1.0
    assert np.abs(degrade(np.random.default_rng(0), original, Degradation()) - original).max() <= 0.5


def test_a_streak_blurs_along_its_direction() -> None:
    point = np.zeros((65, 65, 3), np.float32)
    point[32, 32] = 255 * 20
    spread = degrade(np.random.default_rng(0), point, Degradation(blur=0.03, motion_deg=0.0))[..., 0]
    assert (spread[32] > 4).sum() > 2 * (spread[:, 32] > 4).sum()


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_clarity_is_spread_evenly(strength: float) -> None:
    rng = np.random.default_rng(2)
    clarity = np.array([sample_degradation(rng, strength).clarity for _ in range(2000)])
    assert clarity.min() >= 1 - strength - 1e-9
    counts, _ = np.histogram(clarity, 8, (1 - strength, 1))
    assert counts.min() > 0.75 * 250
    assert counts.max() < 1.25 * 250
