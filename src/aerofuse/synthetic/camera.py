"""A pinhole camera in an aircraft's axes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from aerofuse.synthetic.mesh import Floats, unit


@dataclass(frozen=True, eq=False)
class Camera:
    """`position` [3] metres; `axes` [3, 3] rows right, down, forward; focal length and centre in photo pixels."""

    position: Floats
    axes: Floats
    focal_px: float
    centre_px: tuple[float, float]

    def project(self, points: Floats) -> tuple[Floats, Floats]:
        """Pixels [P, 2] (x right, y down) and depths [P] (metres) of points [P, 3]."""
        seen = (points - self.position) @ self.axes.T
        depth = seen[:, 2]
        scale = self.focal_px / np.maximum(depth, 1e-3)
        pixels = seen[:, :2] * scale[:, None] + np.array(self.centre_px, np.float32)
        return pixels.astype(np.float32), depth

    def rays(self, x: Floats, y: Floats) -> Floats:
        """Unit directions [..., 3] from the camera through pixels."""
        across = (x - self.centre_px[0]) / self.focal_px
        down = (y - self.centre_px[1]) / self.focal_px
        seen = np.stack(np.broadcast_arrays(across, down, 1.0), axis=-1).astype(np.float32)
        return unit(seen @ self.axes)


def look_at(position: Floats, target: Floats, up: Floats, roll_deg: float = 0.0) -> Camera:
    """A camera of focal length 1 px at `position` that looks at `target`, turned by `roll_deg`."""
    forward = unit(target - position)
    right = unit(np.cross(forward, up))
    down = np.cross(forward, right)
    angle = np.radians(roll_deg)
    turned_right = np.cos(angle) * right + np.sin(angle) * down
    turned_down = -np.sin(angle) * right + np.cos(angle) * down
    axes = np.stack([turned_right, turned_down, forward]).astype(np.float32)
    return Camera(position.astype(np.float32), axes, 1.0, (0.0, 0.0))


def framed(camera: Camera, points: Floats, size_px: int, fill: float, shift: tuple[float, float]) -> Camera:
    """The camera zoomed so that the points' box fills the share `fill` of the photo's longer side, all inside.

    `shift` (-1..1 each) moves the box within the room that is left.
    """
    pixels, _ = replace(camera, focal_px=1.0, centre_px=(0.0, 0.0)).project(points)
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    width, height = high - low
    # A tall box (seen from the nose) is kept lower than a wide one is wide: room for the ground and the sky.
    focal = size_px * min(fill / width, 0.9 * fill / height)
    room = size_px * 0.97 - focal * np.array([width, height])
    middle = size_px / 2 + 0.5 * np.maximum(room, 0) * np.array(shift)
    centre = middle - focal * (low + high) / 2
    return Camera(camera.position, camera.axes, float(focal), (float(centre[0]), float(centre[1])))
