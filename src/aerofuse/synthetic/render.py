"""Rendering a textured mesh: the camera, the light, and the shaded pixels.

The painter's algorithm writes the number of the nearest face into every pixel. Texture, normal and light are then
computed once per visible pixel, so that titles, windows and highlights stay smooth on few faces.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from aerofuse.synthetic.mesh import TEXTURE_WIDTH, Floats, Mesh, unit

SUPERSAMPLING = 2
_SHIFT = 4  # binary places of the coordinates that OpenCV fills polygons with


@dataclass(frozen=True, eq=False)
class Camera:
    """`position` [3] metres; `axes` [3, 3] rows right, down, forward; focal length and centre in photo pixels."""

    position: Floats
    axes: Floats
    focal_px: float
    centre_px: tuple[float, float]

    def project(self, points: Floats) -> tuple[Floats, Floats]:
        """Return pixels [P, 2] (x right, y down) and depths [P] (metres) of points [P, 3]."""
        seen = (points - self.position) @ self.axes.T
        depth = seen[:, 2]
        scale = self.focal_px / np.maximum(depth, 1e-3)
        pixels = seen[:, :2] * scale[:, None] + np.array(self.centre_px, np.float32)
        return pixels.astype(np.float32), depth

    def rays(self, x: Floats, y: Floats) -> Floats:
        """Return unit directions [..., 3] from the camera through pixels."""
        across = (x - self.centre_px[0]) / self.focal_px
        down = (y - self.centre_px[1]) / self.focal_px
        seen = np.stack(np.broadcast_arrays(across, down, 1.0), axis=-1).astype(np.float32)
        return unit(seen @ self.axes)


def look_at(position: Floats, target: Floats, up: Floats, roll_deg: float = 0.0) -> Camera:
    """Return a camera of focal length 1 px at `position` that looks at `target`, turned by `roll_deg`."""
    forward = unit(target - position)
    right = unit(np.cross(forward, up))
    down = np.cross(forward, right)
    angle = np.radians(roll_deg)
    turned_right = np.cos(angle) * right + np.sin(angle) * down
    turned_down = -np.sin(angle) * right + np.cos(angle) * down
    axes = np.stack([turned_right, turned_down, forward]).astype(np.float32)
    return Camera(position.astype(np.float32), axes, 1.0, (0.0, 0.0))


def framed(camera: Camera, points: Floats, size_px: int, fill: float, shift: tuple[float, float]) -> Camera:
    """Return the camera zoomed so that the points' box fills the share `fill` of the photo's longer side.

    All points are inside. `shift` (-1..1 each) moves the box within the room that is left.
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


@dataclass(frozen=True, eq=False)
class Light:
    """Sun and surroundings: unit vectors `sun` (towards it) and `up` in the aircraft's axes, RGB strengths 0..~1."""

    sun: Floats
    up: Floats
    sun_colour: Floats
    sky_colour: Floats
    ground_colour: Floats
    haze_colour: Floats
    haze: float


@dataclass(frozen=True, eq=False)
class Layer:
    """A part of a photo at `SUPERSAMPLING` times the photo's size: `colour` [N, N, 3] and `mask` [N, N]."""

    colour: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_]


def render(mesh: Mesh, texture: npt.NDArray[np.uint8], camera: Camera, light: Light, size_px: int) -> Layer:
    """Draw a mesh in perspective at supersampled size; pixels outside its mask are black."""
    size = size_px * SUPERSAMPLING
    colour = np.zeros((size, size, 3), np.uint8)
    towards = camera.position - mesh.centres
    seen = (np.einsum("fi,fi->f", mesh.facing, towards) > 0) | mesh.two_sided
    distance = np.einsum("fi,fi->f", towards, towards)
    order = np.flatnonzero(seen)
    order = order[np.argsort(-distance[order], kind="stable")]
    points, depth = camera.project(mesh.corners[order].reshape(-1, 3))
    points = points.reshape(-1, 4, 2) * np.float32(SUPERSAMPLING)
    if depth.min() < 0.1:
        ahead = depth.reshape(-1, 4).min(axis=1) > 0.1
        order, points = order[ahead], points[ahead]
    faces = _face_numbers(points, size)
    mask = faces >= 0
    rows, columns = np.nonzero(mask)
    if len(rows) == 0:
        return Layer(colour, mask)
    colour[rows, columns] = _shade(mesh, order, points, faces[rows, columns], rows, columns, texture, camera, light)
    return Layer(colour, mask)


def silhouette(points: Floats, size: int) -> npt.NDArray[np.uint8]:
    """Return the union [size, size] of projected quads [F, 4, 2] in pixels, 255 inside."""
    image = np.zeros((size, size), np.uint8)
    for corners in _fixed_point(points, size):
        cv2.fillConvexPoly(image, corners, 255, cv2.LINE_8, _SHIFT)
    return image


def _fixed_point(points: Floats, size: int) -> npt.NDArray[np.int32]:
    centred = np.clip(points - 0.5, -4.0 * size, 4.0 * size)
    return np.asarray(np.round(centred * (1 << _SHIFT)), np.int32)


def _face_numbers(points: Floats, size: int) -> npt.NDArray[np.int32]:
    """Which quad each pixel shows [size, size], -1 for none; quads come farthest first."""
    image = np.full((size, size), -1, np.int32)
    for number, corners in enumerate(_fixed_point(points, size)):
        cv2.fillConvexPoly(image, corners, number, cv2.LINE_8, _SHIFT)
    return image


def _middle(corners: Floats) -> Floats:
    """Mean [F, n] over the corners of [F, 4, n]; `mean` is slow over so short an axis."""
    return (corners[:, 0] + corners[:, 1] + corners[:, 2] + corners[:, 3]) * np.float32(0.25)


def _shade(
    mesh: Mesh,
    order: npt.NDArray[np.intp],
    points: Floats,
    face: npt.NDArray[np.int32],
    rows: npt.NDArray[np.intp],
    columns: npt.NDArray[np.intp],
    texture: npt.NDArray[np.uint8],
    camera: Camera,
    light: Light,
) -> npt.NDArray[np.uint8]:
    """Colours [P, 3] of the visible pixels."""
    # Numbers of the faces that show, renumbered 0, 1, ... (`unique` would sort the pixels).
    count = np.bincount(face, minlength=len(points))
    used = np.flatnonzero(count)
    renumbered = np.zeros(len(points), np.intp)
    renumbered[used] = np.arange(len(used))
    number = renumbered[face]
    order, points = order[used], points[used]
    attributes = mesh.attributes[order]
    view = unit(camera.position - mesh.centres[order])
    # A quad's inside is spanned by its diagonals from its middle; every corner value varies along them.
    first, second = points[:, 2] - points[:, 0], points[:, 3] - points[:, 1]
    determinant = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    inverse = np.where(np.abs(determinant) > 1e-2, 1 / np.where(determinant == 0, 1, determinant), 0)
    to_first = np.stack([second[:, 1], -second[:, 0]], axis=1) * inverse[:, None]
    to_second = np.stack([-first[:, 1], first[:, 0]], axis=1) * inverse[:, None]
    packed = np.concatenate(
        [_middle(points), to_first, to_second, _middle(attributes), attributes[:, 2] - attributes[:, 0],
         attributes[:, 3] - attributes[:, 1], mesh.gloss[order][:, None], view], axis=1,
    ).astype(np.float32)[number]  # fmt: skip
    x, y = columns + 0.5 - packed[:, 0], rows + 0.5 - packed[:, 1]
    along = np.clip(x * packed[:, 2] + y * packed[:, 3], -0.5, 0.5)[:, None]
    across = np.clip(x * packed[:, 4] + y * packed[:, 5], -0.5, 0.5)[:, None]
    values = packed[:, 6:11] + along * packed[:, 11:16] + across * packed[:, 16:21]
    scale = texture.shape[1] / TEXTURE_WIDTH
    column = np.clip((values[:, 0] * scale).astype(np.int32), 0, texture.shape[1] - 1)
    row = np.clip((values[:, 1] * scale).astype(np.int32), 0, texture.shape[0] - 1)
    albedo = texture[row, column].astype(np.float32)
    return _lit(albedo, values[:, 2:5], packed[:, 21], packed[:, 22:25], light)


def _lit(albedo: Floats, normal: Floats, gloss: Floats, view: Floats, light: Light) -> npt.NDArray[np.uint8]:
    """Lambert light from the sun and the half-spheres of sky and ground, with their glossy reflection.

    All are per pixel: `albedo` [P, 3] 0..255, `normal` and `view` (towards the camera) [P, 3], `gloss` [P].
    """
    normal = unit(normal)
    facing = np.maximum(np.einsum("pi,pi->p", normal, view), 0)
    sunlit = np.maximum(normal @ light.sun, 0)[:, None]
    sky_share = (0.5 + 0.5 * (normal @ light.up))[:, None]
    arriving = light.ground_colour + (light.sky_colour - light.ground_colour) * sky_share
    arriving = arriving + light.sun_colour * sunlit
    mirror = 2 * facing[:, None] * normal - view
    grazing = np.square(1 - facing)
    fresnel = (gloss * (0.05 + 0.55 * grazing * grazing))[:, None]
    mirrored_sky = np.clip(mirror @ light.up * 3 + 0.5, 0, 1)[:, None]
    seen = 255 * (0.42 * light.ground_colour + (light.haze_colour / 255 - 0.42 * light.ground_colour) * mirrored_sky)
    glint = np.maximum(mirror @ light.sun, 0)
    for _ in range(5):
        glint = glint * glint  # to the 32nd power, which `**` takes ten times as long for
    glint = (gloss * glint)[:, None] * light.sun_colour * 150
    colour = albedo * arriving * (1 - 0.6 * fresnel) + seen * fresnel + glint
    colour = colour + (light.haze_colour - colour) * light.haze
    lit: npt.NDArray[np.uint8] = np.clip(colour, 0, 255).astype(np.uint8)
    return lit
