"""Quads with normals and texture coordinates, and the lofts that make them.

Coordinates of an aircraft, metres: x aft from the middle of its length, y to starboard, z up from the fuselage axis.
"""

from __future__ import annotations

from dataclasses import dataclass
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
    """The cell of one plain material of `SOLIDS`."""
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
        """Size of the bounding box along x, y, z, metres."""
        points = self.corners.reshape(-1, 3)
        extent: Floats = points.max(axis=0) - points.min(axis=0)
        return extent

    @cached_property
    def centres(self) -> Floats:
        """Middle [F, 3] of every face, metres."""
        middle: Floats = self.corners.mean(axis=1)
        return middle

    @cached_property
    def attributes(self) -> Floats:
        """Texel and normal of every corner side by side [F, 4, 5]."""
        return np.concatenate([self.texels, self.normals], axis=2)

    def moved(self, scale: Floats, offset: Floats) -> Mesh:
        """The mesh stretched per axis and then shifted; normals are kept, so stretch by little."""
        return Mesh(
            (self.corners * scale + offset).astype(np.float32),
            self.normals, self.texels, self.gloss, self.facing, self.two_sided,
        )  # fmt: skip


def join(meshes: list[Mesh]) -> Mesh:
    """All faces of several meshes in one."""
    return Mesh(
        np.concatenate([m.corners for m in meshes]),
        np.concatenate([m.normals for m in meshes]),
        np.concatenate([m.texels for m in meshes]),
        np.concatenate([m.gloss for m in meshes]),
        np.concatenate([m.facing for m in meshes]),
        np.concatenate([m.two_sided for m in meshes]),
    )


def mirrored(mesh: Mesh) -> Mesh:
    """The mesh of the other side (y negated)."""
    flip = np.array([1, -1, 1], np.float32)
    return Mesh(mesh.corners * flip, mesh.normals * flip, mesh.texels, mesh.gloss, mesh.facing * flip, mesh.two_sided)


def texels_of(region: Region, across: Floats, up: Floats) -> Floats:
    """Texels [..., 2] of the cell's fractions (0..1 from its left, 0..1 from its bottom edge), clipped inside it."""
    x, y, width, height = region
    inset = 2.0
    u = x + np.clip(across * width, inset, width - inset)
    v = y + np.clip((1 - up) * height, inset, height - inset)
    texels: Floats = np.stack(np.broadcast_arrays(u, v), axis=-1).astype(np.float32)
    return texels


def unit(vectors: Floats) -> Floats:
    """Vectors [..., 3] scaled to length 1 (zero stays zero)."""
    length = np.sqrt(np.einsum("...i,...i->...", vectors, vectors))[..., None]
    return np.asarray(vectors / np.maximum(length, 1e-9), np.float32)


def grid_normals(points: Floats, closed: bool) -> Floats:
    """Outward normals [S, K, 3] of a grid of S cross-sections with K points each.

    Outward means away from the section's own middle, which holds for every loft here.
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
    """The faces between neighbouring grid points; every grid is [S, K, ...]."""

    def corners(grid: Floats) -> Floats:
        stacked = np.stack([grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]], axis=2)
        return stacked.reshape(-1, 4, grid.shape[-1]).astype(np.float32)

    at, normal, texel = corners(points), corners(normals), corners(texels)
    plane = unit(np.cross(at[:, 2] - at[:, 0], at[:, 3] - at[:, 1]))
    mean = normal.mean(axis=1)
    plane = np.where((plane * mean).sum(-1, keepdims=True) < 0, -plane, plane).astype(np.float32)
    count = len(at)
    return Mesh(at, normal, texel, np.full(count, gloss, np.float32), plane, np.full(count, two_sided))


def loft(sections: Floats, texels: Floats, gloss: float) -> Mesh:
    """A skin over closed sections [S, K, 3]; `texels` [S, K + 1, 2] repeat the seam."""
    normals = grid_normals(sections, closed=True)
    wrap = np.concatenate([sections, sections[:, :1]], axis=1)
    wrapped_normals = np.concatenate([normals, normals[:, :1]], axis=1)
    return quads(wrap, wrapped_normals, texels, gloss)


def plain_loft(sections: Floats, material: str, gloss: float = 0.1) -> Mesh:
    """A skin over closed sections [S, K, 3] in one plain material."""
    shape = sections.shape[0], sections.shape[1] + 1
    middle = np.full(shape, 0.5, np.float32)
    return loft(sections, texels_of(solid(material), middle, middle), gloss)


def disc(centre: Floats, radius: float, axis: int, towards: float, material: str, spokes: int = 12) -> Mesh:
    """A flat round face across x (axis 0) or y (axis 1), seen from the side `towards` (+1 or -1)."""
    angle = np.linspace(0, 2 * np.pi, spokes + 1)
    ring = np.zeros((2, spokes + 1, 3), np.float32)
    other = [i for i in range(3) if i != axis]
    ring[1, :, other[0]] = radius * np.cos(angle)
    ring[1, :, other[1]] = radius * np.sin(angle)
    ring += centre
    normal = np.zeros_like(ring)
    normal[..., axis] = towards
    middle = np.full(ring.shape[:2], 0.5, np.float32)
    return quads(ring, normal, texels_of(solid(material), middle, middle), 0.05)


def box(low: Floats, high: Floats, material: str, gloss: float = 0.1) -> Mesh:
    """An upright box between two corners [3], without softened edges."""
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
            middle = np.full((2, 2), 0.5, np.float32)
            faces.append(quads(face, normal, texels_of(solid(material), middle, middle), gloss))
    return join(faces)
