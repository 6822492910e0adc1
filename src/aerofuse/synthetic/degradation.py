"""Known losses of quality, and the clarity they leave.

With blur `b` (standard deviation, share of the photo's side), noise `n` (standard deviation, grey levels), resolution
`r` (side of the coarsest grid over the photo's side) and JPEG quality `q`, the loss of each is

    blur        (b / 0.016) ** 1.5   (a lens loses little to the first half pixel)
    noise       n / 34
    resolution  (1 / r - 1) / 1.7
    JPEG        (90 - q) / 80   (none without compression)

and `clarity = max(0, 1 - sum of the losses)`: it falls strictly with every one of them, whatever the others are.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from aerofuse.synthetic.mesh import Floats

MAX_BLUR, MAX_NOISE, MAX_SHRINK = 0.016, 34.0, 1.7
BLUR_POWER = 1.5
BEST_QUALITY, WORST_QUALITY = 90, 10


@dataclass(frozen=True)
class Degradation:
    """How a photo is spoilt: units as in the module's formulae; `motion_deg` turns part of the blur into a streak."""

    blur: float = 0.0
    noise: float = 0.0
    resolution: float = 1.0
    jpeg_quality: int | None = None
    motion_deg: float | None = None

    @property
    def clarity(self) -> float:
        """The clarity that is left, from 0 (spoilt) to 1 (untouched)."""
        quality = BEST_QUALITY if self.jpeg_quality is None else self.jpeg_quality
        jpeg = (BEST_QUALITY - quality) / (BEST_QUALITY - WORST_QUALITY)
        loss = (
            (self.blur / MAX_BLUR) ** BLUR_POWER
            + self.noise / MAX_NOISE
            + (1 / self.resolution - 1) / MAX_SHRINK
            + jpeg
        )
        return float(max(0.0, 1.0 - loss))


def sample_degradation(rng: np.random.Generator, strength: float) -> Degradation:
    """Draw a random mixture of losses. Its clarity is uniform on 1 - strength .. 1, to one step of JPEG quality."""
    loss = strength * rng.random()
    blur, noise, shrink, jpeg = loss * rng.dirichlet((0.9, 0.7, 0.7, 0.6))
    steps = int(jpeg * (BEST_QUALITY - WORST_QUALITY))
    return Degradation(
        blur=float(blur ** (1 / BLUR_POWER) * MAX_BLUR),
        noise=float(noise * MAX_NOISE),
        resolution=float(1 / (1 + shrink * MAX_SHRINK)),
        jpeg_quality=BEST_QUALITY - steps if steps > 0 else None,
        motion_deg=float(rng.uniform(0, 180)) if rng.random() < 0.4 else None,
    )


def degrade(rng: np.random.Generator, image: Floats, how: Degradation) -> npt.NDArray[np.uint8]:
    """Return a spoilt copy [H, W, 3] uint8 of an image [H, W, 3] 0..255: lens, sensor grid, noise, then JPEG."""
    size = image.shape[0]
    sigma = how.blur * size
    if sigma > 0.05:
        image = _blurred(image, sigma, how.motion_deg)
    side = max(8, round(size * how.resolution))
    if side < size:
        small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        image = np.asarray(cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)
    if how.noise > 0.05:
        grain = rng.standard_normal((size, size, 1), dtype=np.float32)
        colour = rng.standard_normal(image.shape, dtype=np.float32)
        image = image + how.noise * (0.8 * grain + 0.6 * colour)
    result: npt.NDArray[np.uint8] = np.clip(image + 0.5, 0, 255).astype(np.uint8)
    if how.jpeg_quality is not None:
        _, data = cv2.imencode(".jpg", result[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, how.jpeg_quality])
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert decoded is not None, "OpenCV does not read back what it has just written"
        result = np.ascontiguousarray(decoded[..., ::-1], np.uint8)
    return result


def _blurred(image: Floats, sigma: float, motion_deg: float | None) -> Floats:
    """Blur of standard deviation `sigma` pixels along its widest direction: round, or a streak."""
    if motion_deg is None:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.float32)
    radius = max(1, int(np.ceil(2.5 * sigma)))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float32)
    angle = np.radians(motion_deg)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    # The narrow direction keeps a little width, or a short streak would not be drawn between pixels at all.
    kernel = np.exp(-0.5 * (along / sigma) ** 2 - 0.5 * (across / max(0.35 * sigma, 0.3)) ** 2)
    return np.asarray(cv2.filter2D(image, -1, (kernel / kernel.sum()).astype(np.float32)), np.float32)
