"""Twelve invented airlines, and random ones for pretraining.

Every palette is worn by three airlines, so that colour alone narrows an airline down to three: the layout of
fuselage, belly, cheat line, tail motif, engines and titles tells which.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

Colour = tuple[int, int, int]
Stripe = Literal["none", "single", "double", "broad", "rising", "wave"]
Motif = Literal[
    "disc", "ring", "bars", "diagonal", "chevron", "star", "wave", "split", "bird", "checker", "sun", "leaf"
]  # fmt: skip
Title = Literal["none", "small", "large"]
STRIPES: tuple[Stripe, ...] = get_args(Stripe)
MOTIFS: tuple[Motif, ...] = get_args(Motif)

# Places in a palette.
BASE, PRIMARY, SECONDARY, GREY = 0, 1, 2, 3
_LIGHT_GREY: Colour = (188, 192, 197)


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

    @property
    def layout(self) -> tuple[object, ...]:
        """What remains of a livery once its colours are taken away."""
        return (self.upper, self.belly, self.stripe, self.motif, self.rear_sweep, self.title)


def _palette(base: Colour, primary: Colour, secondary: Colour) -> tuple[Colour, Colour, Colour, Colour]:
    return (base, primary, secondary, _LIGHT_GREY)


_NAVY = _palette((244, 245, 247), (24, 44, 104), (206, 34, 46))
_GREEN = _palette((243, 241, 232), (16, 98, 66), (226, 168, 40))
_SKY = _palette((246, 247, 248), (38, 128, 196), (240, 116, 30))
_WINE = _palette((240, 240, 243), (120, 22, 56), (28, 146, 148))

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


def random_livery(rng: np.random.Generator, name: str) -> Livery:
    """An invented airline for pretraining, whose layout is none of the twelve's.

    Its colours are drawn freely, so some share a hue with a built-in airline; the layout never agrees.
    """
    taken = {livery.layout for livery in BUILT_IN_LIVERIES}
    while True:
        hue = rng.random()
        primary = _rgb(hue, rng.uniform(0.6, 0.95), rng.uniform(0.3, 0.75))
        secondary = _rgb(hue + rng.uniform(0.2, 0.8), rng.uniform(0.6, 0.95), rng.uniform(0.45, 0.95))
        light = int(rng.integers(225, 250))
        fin = int(rng.choice([BASE, PRIMARY, SECONDARY], p=[0.2, 0.5, 0.3]))
        upper = int(rng.choice([BASE, PRIMARY, SECONDARY, GREY], p=[0.6, 0.2, 0.1, 0.1]))
        livery = Livery(
            name=name,
            palette=_palette((light, light, light), primary, secondary),
            upper=upper,
            belly=int(rng.integers(4)),
            belly_level=float(rng.uniform(0.28, 0.52)),
            stripe=STRIPES[int(rng.integers(len(STRIPES)))],
            stripe_colour=_other(rng, upper),
            fin=fin,
            motif=MOTIFS[int(rng.integers(len(MOTIFS)))],
            motif_colour=_other(rng, fin),
            rear_sweep=bool(rng.random() < 0.5),
            engine=int(rng.integers(4)),
            winglet=int(rng.integers(1, 3)),
            title=("none", "small", "large")[int(rng.integers(3))],
            title_colour=_other(rng, upper),
        )
        if livery.layout not in taken:
            return livery


def _other(rng: np.random.Generator, colour: int) -> int:
    """A place in the palette that shows on another."""
    return int(rng.choice([place for place in (BASE, PRIMARY, SECONDARY) if place != colour]))


def _rgb(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(float(hue) % 1.0, float(saturation), float(value))
    return round(255 * red), round(255 * green), round(255 * blue)
