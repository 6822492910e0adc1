"""Inventing plausible airliners and airlines, for pretraining."""

from __future__ import annotations

import colorsys
from typing import get_args

import numpy as np

from aerofuse.synthetic.airframes import BUILT_IN_TYPES, AircraftType, Cockpit, EnginePlace, Tail, Winglet
from aerofuse.synthetic.fleet import Fleet, make_airframes
from aerofuse.synthetic.liveries import (
    BASE,
    BUILT_IN_LIVERIES,
    GREY,
    PRIMARY,
    SECONDARY,
    Colour,
    Livery,
    Motif,
    Stripe,
    Title,
    make_palette,
)
from aerofuse.synthetic.mesh import Floats

MIN_DISTANCE = 1.0
_MAX_DRAWS = 2_000
_WINGLETS: tuple[Winglet, ...] = get_args(Winglet)
_COCKPITS: tuple[Cockpit, ...] = get_args(Cockpit)
_STRIPES: tuple[Stripe, ...] = get_args(Stripe)
_MOTIFS: tuple[Motif, ...] = get_args(Motif)
_TITLES: tuple[Title, ...] = get_args(Title)


def random_fleet(num_types: int, num_airlines: int, num_airframes: int, seed: int) -> Fleet:
    """Return a fleet of invented types and airlines for pretraining. All differ from each other and from the built-in.

    Raises `ValueError` where there is no room for so many types.
    """
    rng = np.random.default_rng([seed, 13])
    types: tuple[AircraftType, ...] = ()
    for k in range(num_types):
        types += (random_type(rng, f"Type {k + 1:02d}", avoid=types),)
    liveries = tuple(random_livery(rng, name) for name in _airline_names(rng, num_airlines))
    return Fleet(types, liveries, make_airframes(num_types, num_airlines, num_airframes, rng))


def shape_distance(first: AircraftType, second: AircraftType) -> float:
    """Return how unlike two types look once the framing has taken their size away.

    The sum of the differences in slenderness (length over fuselage height, in 2.5), span over length (in 0.15), fin
    height over length (in 0.06), sweep (in 12 degrees), wing position (in 0.08) and engine diameter over fuselage
    height (in 0.2), plus 1 for each of: engine number, engine place, tail, winglet, decks, propellers. A320 and 737
    lie about 2 apart.
    """

    def measures(a: AircraftType) -> Floats:
        return np.array(
            [
                a.length_m / a.fuselage_height_m / 2.5, a.span_m / a.length_m / 0.15, a.height_m / a.length_m / 0.06,
                a.sweep_deg / 12, a.wing_position / 0.08, a.engine_diameter_m / a.fuselage_height_m / 0.2,
            ]
        )  # fmt: skip

    kinds = ("engines", "engine_place", "tail", "winglet", "decks", "propellers")
    differing = sum(getattr(first, kind) != getattr(second, kind) for kind in kinds)
    return float(np.abs(measures(first) - measures(second)).sum() + differing)


def random_type(rng: np.random.Generator, name: str, avoid: tuple[AircraftType, ...] = ()) -> AircraftType:
    """Draw a type at least `MIN_DISTANCE` (see `shape_distance`) from the ten and from those in `avoid`.

    Raises `ValueError` where no such type is found.
    """
    for _ in range(_MAX_DRAWS):
        candidate = _draw(rng, name)
        if min(shape_distance(candidate, other) for other in (*BUILT_IN_TYPES, *avoid)) >= MIN_DISTANCE:
            return candidate
    raise ValueError(f"no room for another random type beside {len(avoid)}: ask for fewer types")


def _draw(rng: np.random.Generator, name: str) -> AircraftType:
    """Any airliner: a layout first, then proportions within its class."""
    layout = ("twin", "quad", "trijet", "rear", "prop", "high")[int(rng.choice(6, p=[0.34, 0.2, 0.1, 0.16, 0.1, 0.1]))]
    wide = layout in ("quad", "trijet") or (layout == "twin" and rng.random() < 0.5)
    width = rng.uniform(4.8, 7.0) if wide else rng.uniform(2.6, 4.1)
    slender = {"prop": (7.5, 11.0), "high": (6.5, 10.0), "rear": (9.0, 15.0)}.get(layout, (7.5, 13.5))
    length = width * rng.uniform(*slender)
    decks = 2.0 if layout == "quad" and rng.random() < 0.3 else 1.0
    hump = width * 0.2 if layout == "quad" and decks == 1 and rng.random() < 0.35 else 0.0
    height = width * rng.uniform(0.98, 1.08) * (1.16 if decks == 2 else 1.0) + hump
    straight = layout == "prop"
    span = length * (rng.uniform(0.85, 1.1) if layout != "rear" else rng.uniform(0.66, 0.85))
    sweep = rng.uniform(0, 4) if straight else rng.uniform(14, 38)
    root = span * (rng.uniform(0.09, 0.12) if straight else rng.uniform(0.16, 0.22))
    belly = width * rng.uniform(0.27, 0.33) if layout in ("prop", "high", "rear") else width * rng.uniform(0.32, 0.45)
    tail: Tail = "t-tail" if layout in ("rear", "prop", "high") else "conventional"
    engine = width * {"rear": 0.48, "prop": 0.42, "high": 0.42}.get(layout, rng.uniform(0.42, 0.62))
    count = {"quad": 4, "trijet": 3, "high": int(rng.choice([2, 4]))}.get(layout, 2)
    half = span / 2
    offsets = {
        "quad": (0.36 * half, 0.64 * half), "rear": (0.5 * width + 0.62 * engine,),
        "prop": (rng.uniform(0.27, 0.38) * half,),
        "high": (0.32 * half, 0.57 * half) if count == 4 else (0.35 * half,),
    }.get(layout, (rng.uniform(0.28, 0.38) * half,))  # fmt: skip
    winglet = _WINGLETS[int(rng.integers(1 if straight else len(_WINGLETS)))]
    rise = 0.0 if winglet == "none" else span * rng.uniform(0.03, 0.075)
    wing_at = rng.uniform(0.42, 0.50) if layout == "rear" else rng.uniform(0.27, 0.38)
    if straight:
        wing_at = rng.uniform(0.38, 0.44)
    track = max(width * 1.3, 0.14 * span)
    main_leg = (wing_at + 0.75 * root / length + 0.04) * length
    nose_gear = length * rng.uniform(0.07, 0.12)
    fin_height = length * (rng.uniform(0.11, 0.16) if tail == "t-tail" else rng.uniform(0.13, 0.18))
    places: dict[str, EnginePlace] = {"rear": "rear", "trijet": "wing+fin", "prop": "high-wing", "high": "high-wing"}
    place = places.get(layout, "wing")
    return AircraftType(
        name=name, length_m=length, span_m=span, height_m=height - hump + belly + fin_height,
        fuselage_width_m=width, fuselage_height_m=height, belly_clearance_m=belly,
        sweep_deg=sweep, dihedral_deg=rng.uniform(-3, 2) if place == "high-wing" else rng.uniform(3.5, 7.5),
        wing_position=wing_at, root_chord_m=root, kink=rng.uniform(0.32, 0.4),
        kink_chord_m=root * (rng.uniform(0.9, 1.0) if straight else rng.uniform(0.55, 0.65)),
        tip_chord_m=root * (rng.uniform(0.5, 0.6) if straight else rng.uniform(0.18, 0.28)),
        engines=count, engine_place=place, engine_diameter_m=engine,
        engine_length_m=engine * (3.4 if layout in ("rear", "prop") else rng.uniform(1.6, 2.1)),
        engine_offsets_m=offsets, tail=tail, tailplane_span_m=span * rng.uniform(0.28, 0.38),
        fin_chord_m=length * rng.uniform(0.13, 0.165), fin_sweep_deg=rng.uniform(30, 46),
        nose_gear_m=nose_gear, wheelbase_m=main_leg - nose_gear, track_m=track,
        winglet=winglet, winglet_height_m=rise, propellers=layout == "prop", high_wing=place == "high-wing",
        decks=decks if not hump else 1.4, hump_m=hump, dorsal_m=length * rng.uniform(0, 0.12) * (rng.random() < 0.5),
        flat_nacelles=bool(rng.random() < 0.2) and layout == "twin", cockpit=_COCKPITS[int(rng.integers(4))],
        nose_length=rng.uniform(1.05, 1.75), nose_tip=rng.uniform(0.15, 0.4), nose_sharpness=rng.uniform(1.2, 1.8),
        windscreen_step=rng.uniform(0, 0.16) if not hump else 0.0, tail_length=rng.uniform(2.4, 3.6),
        tail_rise=rng.uniform(1.0, 1.4), wing_flex_m=span * rng.uniform(0, 0.04) * (rng.random() < 0.5),
        main_axles=2 if wide else 1, body_legs=wide and count == 4,
    )  # fmt: skip


def layout(livery: Livery) -> tuple[object, ...]:
    """Return the livery without its colours."""
    return (livery.upper, livery.belly, livery.stripe, livery.motif, livery.rear_sweep, livery.title)


def random_livery(rng: np.random.Generator, name: str) -> Livery:
    """Draw an invented airline for pretraining.

    Its colours are free, so some share a hue with a built-in airline. Its layout is none of the twelve.
    """
    taken = {layout(livery) for livery in BUILT_IN_LIVERIES}
    while True:
        hue = rng.random()
        primary = _rgb(hue, rng.uniform(0.6, 0.95), rng.uniform(0.3, 0.75))
        secondary = _rgb(hue + rng.uniform(0.2, 0.8), rng.uniform(0.6, 0.95), rng.uniform(0.45, 0.95))
        light = int(rng.integers(225, 250))
        fin = int(rng.choice([BASE, PRIMARY, SECONDARY], p=[0.2, 0.5, 0.3]))
        upper = int(rng.choice([BASE, PRIMARY, SECONDARY, GREY], p=[0.6, 0.2, 0.1, 0.1]))
        livery = Livery(
            name=name,
            palette=make_palette((light, light, light), primary, secondary),
            upper=upper,
            belly=int(rng.integers(4)),
            belly_level=float(rng.uniform(0.28, 0.52)),
            stripe=_STRIPES[int(rng.integers(len(_STRIPES)))],
            stripe_colour=_other(rng, upper),
            fin=fin,
            motif=_MOTIFS[int(rng.integers(len(_MOTIFS)))],
            motif_colour=_other(rng, fin),
            rear_sweep=bool(rng.random() < 0.5),
            engine=int(rng.integers(4)),
            winglet=int(rng.integers(1, 3)),
            title=_TITLES[int(rng.integers(len(_TITLES)))],
            title_colour=_other(rng, upper),
        )
        if layout(livery) not in taken:
            return livery


def _airline_names(rng: np.random.Generator, count: int) -> list[str]:
    """Distinct made-up names; they are painted on the fuselage, so they differ in length and shape."""
    starts, middles = ("Bra", "Cel", "Dor", "Fen", "Gli", "Jor", "Kel", "Lum", "Pel", "Sor"), ("a", "e", "i", "o", "u")
    ends = ("dis", "mar", "nova", "rix", "sen", "tavia", "vek", "wyn", "zor")
    taken = {livery.name for livery in BUILT_IN_LIVERIES}
    names: list[str] = []
    while len(names) < count:
        parts = (starts, middles, ends) if len(taken) < 400 else (starts, middles, ends, ends)
        name = "".join(part[int(rng.integers(len(part)))] for part in parts)
        if name not in taken:
            taken.add(name)
            names.append(name)
    return names


def _other(rng: np.random.Generator, colour: int) -> int:
    """A place in the palette that shows on another."""
    return int(rng.choice([place for place in (BASE, PRIMARY, SECONDARY) if place != colour]))


def _rgb(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(float(hue) % 1.0, float(saturation), float(value))
    return round(255 * red), round(255 * green), round(255 * blue)
