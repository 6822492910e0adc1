"""Liveries: those of twelve invented airlines, and the motifs on their tails.

Three airlines wear each palette, so colour alone does not tell the airline. The layout of fuselage, belly, cheat
line, tail motif, engines and titles does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

Colour = tuple[int, int, int]
Stripe = Literal["none", "single", "double", "broad", "rising", "wave"]
Motif = Literal[
    "disc", "ring", "bars", "diagonal", "chevron", "star", "wave", "split", "bird", "checker", "sun", "leaf"
]  # fmt: skip
Title = Literal["none", "small", "large"]

# Places in a palette.
BASE, PRIMARY, SECONDARY, GREY = 0, 1, 2, 3
_LIGHT_GREY: Colour = (188, 192, 197)
# The fin leans aft: its middle line runs from here at the foot to there at the tip (texels of the 128 x 128 cell).
_FOOT, _TIP = 48.0, 100.0


@dataclass(frozen=True)
class Livery:
    """An airline's paint. `palette` is (base, primary, secondary, grey) in RGB; every other colour is a place in it.

    `belly_level` is how far up the fuselage's girth the belly colour reaches (0 none .. 1 all); `rear_sweep` says
    whether the fin's colour runs down over the rear fuselage.
    """

    name: str
    palette: tuple[Colour, Colour, Colour, Colour]
    upper: int
    belly: int
    belly_level: float
    stripe: Stripe
    stripe_colour: int
    fin: int
    motif: Motif
    motif_colour: int
    rear_sweep: bool
    engine: int
    winglet: int
    title: Title
    title_colour: int


def make_palette(base: Colour, primary: Colour, secondary: Colour) -> tuple[Colour, Colour, Colour, Colour]:
    """Return the palette with the grey that all share."""
    return (base, primary, secondary, _LIGHT_GREY)


_NAVY = make_palette((244, 245, 247), (24, 44, 104), (206, 34, 46))
_GREEN = make_palette((243, 241, 232), (16, 98, 66), (226, 168, 40))
_SKY = make_palette((246, 247, 248), (38, 128, 196), (240, 116, 30))
_WINE = make_palette((240, 240, 243), (120, 22, 56), (28, 146, 148))

BUILT_IN_LIVERIES: tuple[Livery, ...] = (
    Livery("Northlark", _NAVY, BASE, GREY, 0.30, "single", PRIMARY, PRIMARY, "disc", SECONDARY, False,
           BASE, PRIMARY, "small", PRIMARY),
    Livery("Calderis", _NAVY, BASE, PRIMARY, 0.46, "single", SECONDARY, SECONDARY, "chevron", BASE, False,
           PRIMARY, SECONDARY, "large", PRIMARY),
    Livery("Vellano", _NAVY, PRIMARY, PRIMARY, 0.30, "none", SECONDARY, BASE, "bars", SECONDARY, True,
           SECONDARY, BASE, "large", BASE),
    Livery("Tamarinda", _GREEN, BASE, BASE, 0.30, "broad", PRIMARY, PRIMARY, "sun", SECONDARY, False,
           SECONDARY, PRIMARY, "small", PRIMARY),
    Livery("Quillair", _GREEN, BASE, SECONDARY, 0.40, "rising", PRIMARY, SECONDARY, "leaf", PRIMARY, True,
           PRIMARY, SECONDARY, "none", PRIMARY),
    Livery("Meridone", _GREEN, PRIMARY, GREY, 0.38, "double", SECONDARY, PRIMARY, "star", SECONDARY, True,
           BASE, SECONDARY, "small", BASE),
    Livery("Sundrift", _SKY, BASE, GREY, 0.34, "wave", SECONDARY, PRIMARY, "split", SECONDARY, True,
           PRIMARY, SECONDARY, "large", PRIMARY),
    Livery("Kestrane", _SKY, BASE, PRIMARY, 0.50, "none", PRIMARY, SECONDARY, "bird", BASE, False,
           SECONDARY, PRIMARY, "none", PRIMARY),
    Livery("Zephanto", _SKY, SECONDARY, BASE, 0.40, "double", BASE, BASE, "checker", PRIMARY, False,
           BASE, SECONDARY, "large", BASE),
    Livery("Halcyra", _WINE, BASE, GREY, 0.32, "double", PRIMARY, BASE, "diagonal", PRIMARY, False,
           GREY, PRIMARY, "small", SECONDARY),
    Livery("Ombrelle", _WINE, GREY, PRIMARY, 0.42, "single", SECONDARY, PRIMARY, "ring", BASE, True,
           PRIMARY, SECONDARY, "small", PRIMARY),
    Livery("Brindavia", _WINE, BASE, SECONDARY, 0.36, "broad", SECONDARY, SECONDARY, "wave", PRIMARY, True,
           SECONDARY, PRIMARY, "none", PRIMARY),
)  # fmt: skip


def draw_motif(fin: npt.NDArray[np.uint8], motif: Motif, colour: Colour, ground: Colour) -> None:
    """Draw the motif over a fin cell [128, 128, 3] in place; `ground` is the colour already there."""
    centre = (round(_along(0.52)), 61)

    def fill(points: list[tuple[float, float]], paint: Colour = colour) -> None:
        corners = np.array([[x, (1 - up) * 128] for x, up in points])
        cv2.fillPoly(fin, [np.round(corners).astype(np.int32)], paint, cv2.LINE_AA)

    if motif == "disc":
        cv2.circle(fin, centre, 27, colour, -1, cv2.LINE_AA)
    elif motif == "ring":
        cv2.circle(fin, centre, 25, colour, 10, cv2.LINE_AA)
    elif motif == "bars":
        for up in (0.18, 0.46, 0.74):
            fill([(0, up), (128, up), (128, up + 0.15), (0, up + 0.15)])
    elif motif == "diagonal":
        fill([(20, 0.0), (75, 0.0), (128, 0.62), (128, 1.0), (105, 1.0)])
    elif motif == "chevron":
        for shift in (0.0, 0.36):
            fill([(0, 0.06 + shift), (70, 0.42 + shift), (128, 0.06 + shift), (128, 0.24 + shift),
                  (70, 0.60 + shift), (0, 0.24 + shift)])  # fmt: skip
    elif motif == "star":
        angles = np.pi / 2 + np.arange(10) * np.pi / 5
        radii = np.where(np.arange(10) % 2 == 0, 36, 15)
        fill([(centre[0] + r * np.cos(a), 0.52 + r * np.sin(a) / 128) for a, r in zip(angles, radii, strict=True)])
    elif motif == "wave":
        columns = np.linspace(0, 128, 24)
        for up in (0.22, 0.60):
            crest = up + 0.10 * np.sin(columns / 128 * 2 * np.pi * 1.3)
            fill([*zip(columns, crest, strict=True), *zip(columns[::-1], crest[::-1] + 0.19, strict=True)])
    elif motif == "split":
        fill([(0, 0.55), (128, 0.35), (128, 1.0), (0, 1.0)])
    elif motif == "bird":
        fill([(28, 0.30), (62, 0.44), (112, 0.92), (108, 0.60), (86, 0.38), (58, 0.20), (82, 0.16), (50, 0.10)])
    elif motif == "checker":
        for i in range(4):
            for j in range(4):
                if (i + j) % 2 == 0:
                    left, low = 8 + 30 * i, 0.04 + 0.235 * j
                    fill([(left, low), (left + 30, low), (left + 30, low + 0.235), (left, low + 0.235)])
    elif motif == "sun":
        foot = (56.0, 0.06)
        for angle in np.linspace(0.15, 2.6, 7):
            ends = [(foot[0] + 150 * np.cos(angle + d), foot[1] + 150 * np.sin(angle + d) / 128) for d in (-0.1, 0.1)]
            fill([foot, *ends])
        cv2.circle(fin, (56, 120), 34, colour, -1, cv2.LINE_AA)
    elif motif == "leaf":
        axes = (48, 19)
        cv2.ellipse(fin, centre, axes, -58, 0, 360, colour, -1, cv2.LINE_AA)
        cv2.line(fin, (round(_along(0.14)), 112), (round(_along(0.9)), 14), ground, 5, cv2.LINE_AA)
    else:
        raise ValueError(f"unknown tail motif {motif!r}")


def _along(up: float) -> float:
    """Column of the fin's middle at a share of its height."""
    return _FOOT + (_TIP - _FOOT) * up
