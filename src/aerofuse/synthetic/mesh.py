"""Quads with normals and texture coordinates, and the lofts that make them.

Coordinates of an aircraft, metres: x aft from the middle of its length, y to starboard, z up from the fuselage axis.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Region = tuple[int, int, int, int]

# Where each surface finds its paint in a livery's texture: x, y, width, height in texels of the full-size sheet.
# Cells are multiples of 16 so that the sheet can be halved twice without neighbours bleeding into each other.
TEXTURE_WIDTH, TEXTURE_HEIGHT = 512, 384
PORT: Region = (0, 0, 512, 96)
STARBOARD: Region = (0, 96, 512, 96)
FIN: Region = (0, 192, 128, 128)
WING_TOP: Region = (128, 192, 128, 128)
WING_BELOW: Region = (256, 192, 128, 64)
TAILPLANE: Region = (256, 256, 64, 64)
WINGLET: Region = (320, 256, 64, 64)
COWL: Region = (384, 192, 64, 64)
SOLIDS = ("dark", "lip", "tyre", "strut", "propeller", "exhaust", "pylon", "fan", "hub", "fairing", "spinner")


def solid(name: str) -> Region:
    """Return the cell of one plain material of `SOLIDS`."""
    return (32 * SOLIDS.index(name), 320, 32, 32)


@dataclass(frozen=True, eq=False)
class Mesh:
    """`F` quads (triangles repeat a corner), each corner with its own normal and texel.

    `corners` [F, 4, 3] metres, `normals` [F, 4, 3] outward units, `texels` [F, 4, 2] in the full-size texture,
    `gloss` [F] 0 matt .. 1 polished, `facing` [F, 3] the plane's outward normal, `two_sided` [F].
    """

    corners: Floats
    normals: Floats
    texels: Floats
    gloss: Floats
    facing: Floats
    two_sided: npt.NDArray[np.bool_]

    @cached_property
    def extent_m(self) -> Floats:
        """Size [3] of the bounding box along x, y, z, metres."""
        return np.asarray(np.ptp(self.corners.reshape(-1, 3), axis=0))

    @cached_property
    def centres(self) -> Floats:
        """Middle [F, 3] of every face, metres."""
        return np.asarray(self.corners.mean(axis=1))

    @cached_property
    def attributes(self) -> Floats:
        """Texel and normal of every corner side by side [F, 4, 5]."""
        return np.concatenate([self.texels, self.normals], axis=2)

    def moved(self, scale: Floats, offset: Floats) -> Mesh:
        """Return the mesh stretched per axis and then shifted. Normals are kept, so stretch by little."""
        return replace(self, corners=(self.corners * scale + offset).astype(np.float32))


def join(meshes: list[Mesh]) -> Mesh:
    """Return all faces of several meshes in one."""
    return Mesh(*(np.concatenate([getattr(mesh, field.name) for mesh in meshes]) for field in fields(Mesh)))


def mirrored(mesh: Mesh) -> Mesh:
    """Return the mesh of the other side (y negated)."""
    flip = np.array([1, -1, 1], np.float32)
    return replace(mesh, corners=mesh.corners * flip, normals=mesh.normals * flip, facing=mesh.facing * flip)


def texels_of(region: Region, across: Floats, up: Floats) -> Floats:
    """Return texels [..., 2] for fractions of a cell (0..1 from its left, 0..1 from its bottom), clipped inside it."""
    x, y, width, height = region
    inset = 2.0
    u = x + np.clip(across * width, inset, width - inset)
    v = y + np.clip((1 - up) * height, inset, height - inset)
    texels: Floats = np.stack(np.broadcast_arrays(u, v), axis=-1).astype(np.float32)
    return texels


def solid_texels(material: str, shape: tuple[int, ...]) -> Floats:
    """Return texels [*shape, 2] that all lie in the middle of a plain material's cell."""
    middle = np.full(shape, 0.5, np.float32)
    return texels_of(solid(material), middle, middle)


def unit(vectors: Floats) -> Floats:
    """Scale vectors [..., 3] to length 1 (zero stays zero)."""
    length = np.sqrt(np.einsum("...i,...i->...", vectors, vectors))[..., None]
    return np.asarray(vectors / np.maximum(length, 1e-9), np.float32)


def grid_normals(points: Floats, closed: bool) -> Floats:
    """Return the outward normals [S, K, 3] of a grid of S cross-sections with K points each.

    Outward means away from the middle of the section, which holds for every loft here.
    """
    along: Floats = np.asarray(np.gradient(points, axis=0))
    around: Floats = np.asarray(np.gradient(points, axis=1))
    if closed:
        around = np.roll(points, -1, axis=1) - np.roll(points, 1, axis=1)
    normals = unit(np.cross(along, around))
    outward = points - points.mean(axis=1, keepdims=True)
    sign = np.where((normals * outward).sum(-1, keepdims=True) < 0, -1, 1)
    degenerate = np.abs(normals).sum(-1, keepdims=True) < 1e-6
    return np.where(degenerate, unit(outward), normals * sign).astype(np.float32)


def quads(points: Floats, normals: Floats, texels: Floats, gloss: float, two_sided: bool = False) -> Mesh:
    """Return the faces between neighbouring grid points; every grid is [S, K, ...]."""

    def corners(grid: Floats) -> Floats:
        stacked = np.stack([grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]], axis=2)
        return stacked.reshape(-1, 4, grid.shape[-1]).astype(np.float32)

    at, normal, texel = corners(points), corners(normals), corners(texels)
    plane = unit(np.cross(at[:, 2] - at[:, 0], at[:, 3] - at[:, 1]))
    mean = normal.mean(axis=1)
    plane = np.where((plane * mean).sum(-1, keepdims=True) < 0, -plane, plane).astype(np.float32)
    count = len(at)
    return Mesh(at, normal, texel, np.full(count, gloss, np.float32), plane, np.full(count, two_sided))


def wrapped(grid: Floats) -> Floats:
    """Return a grid [S, K, ...] of closed sections with its first column repeated at the end, [S, K + 1, ...]."""
    return np.concatenate([grid, grid[:, :1]], axis=1)


def loft(sections: Floats, texels: Floats, gloss: float) -> Mesh:
    """Return a skin over closed sections [S, K, 3]; `texels` [S, K + 1, 2] repeat the seam."""
    return quads(wrapped(sections), wrapped(grid_normals(sections, closed=True)), texels, gloss)


def plain_loft(sections: Floats, material: str, gloss: float = 0.1) -> Mesh:
    """Return a skin over closed sections [S, K, 3] in one plain material."""
    return loft(sections, solid_texels(material, (len(sections), sections.shape[1] + 1)), gloss)


def disc(centre: Floats, radius: float, axis: int, towards: float, material: str, spokes: int = 12) -> Mesh:
    """Return a flat round face across x (axis 0) or y (axis 1), seen from the side `towards` (+1 or -1)."""
    angle = np.linspace(0, 2 * np.pi, spokes + 1)
    ring = np.zeros((2, spokes + 1, 3), np.float32)
    other = [i for i in range(3) if i != axis]
    ring[1, :, other[0]] = radius * np.cos(angle)
    ring[1, :, other[1]] = radius * np.sin(angle)
    ring += centre
    normal = np.zeros_like(ring)
    normal[..., axis] = towards
    return quads(ring, normal, solid_texels(material, ring.shape[:2]), 0.05)


def box(low: Floats, high: Floats, material: str, gloss: float = 0.1) -> Mesh:
    """Return an upright box between two corners [3]."""
    faces = []
    for axis in range(3):
        first, second = [i for i in range(3) if i != axis]
        for side, level in ((-1.0, low[axis]), (1.0, high[axis])):
            face = np.zeros((2, 2, 3), np.float32)
            face[..., axis] = level
            face[0, :, first], face[1, :, first] = low[first], high[first]
            face[:, 0, second], face[:, 1, second] = low[second], high[second]
            normal = np.zeros_like(face)
            normal[..., axis] = side
            faces.append(quads(face, normal, solid_texels(material, (2, 2)), gloss))
    return join(faces)
