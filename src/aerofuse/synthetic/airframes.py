"""Ten airliners by their published dimensions.

The figures are those of the manufacturers' airport planning documents (Airbus "Aircraft Characteristics, Airport
and Maintenance Planning" for A320, A350-900 and A380-800; Boeing "Airplane Characteristics for Airport Planning"
D6-58325 for the 737-800, D6-58333 for the 787-9, D6-58326-1 for the 747-400, MDC-K0388 for the MD-11, MDC-J2904 for
the MD-80 family; ATR "Airport Planning Manual" for the ATR 72; BAe 146 "Aeroplane Characteristics for Airport
Planning"). They were set down from memory of those documents, not copied with a page open: take length, span, height,
fuselage section and sweep as good to the last digit but one, dihedral, tailplane span, engine stations, wheelbase and
track to a few per cent, and chords, nose and tail-cone proportions, which no table gives, to about 5 %.

Two pairs are near-twins on purpose: A320 / 737 and A350 / 787. What tells them apart is drawn at its true size:
wingtip fences against blended winglets, the 737's dorsal fillet, flattened nacelles and low stance; the A350's
curved tips and dark cockpit mask against the 787's raked tips and pointed nose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

EnginePlace = Literal["wing", "rear", "wing+fin", "high-wing"]
Tail = Literal["conventional", "t-tail"]
Winglet = Literal["none", "fence", "blended", "canted", "split", "raked", "curved"]
Cockpit = Literal["panes", "mask", "vee", "band"]


@dataclass(frozen=True)
class AircraftType:
    """One aircraft type; every length in metres, angles in degrees.

    `length_m`, `span_m` and `height_m` are the overall dimensions on the ground, winglets included. Stations along
    the fuselage (`wing_position`) are fractions of the length from the nose. Nose and tail-cone lengths are counted
    in fuselage diameters, `nose_tip` (how far the tip lies below the axis) and `tail_rise` in half heights.
    """

    name: str
    length_m: float
    span_m: float
    height_m: float
    fuselage_width_m: float
    fuselage_height_m: float
    belly_clearance_m: float
    sweep_deg: float
    dihedral_deg: float
    wing_position: float
    root_chord_m: float
    kink: float
    kink_chord_m: float
    tip_chord_m: float
    engines: int
    engine_place: EnginePlace
    engine_diameter_m: float
    engine_length_m: float
    engine_offsets_m: tuple[float, ...]
    tail: Tail
    tailplane_span_m: float
    fin_chord_m: float
    fin_sweep_deg: float
    nose_gear_m: float
    wheelbase_m: float
    track_m: float
    winglet: Winglet = "none"
    winglet_height_m: float = 0.0
    propellers: bool = False
    high_wing: bool = False
    decks: float = 1.0
    hump_m: float = 0.0
    dorsal_m: float = 0.0
    flat_nacelles: bool = False
    cockpit: Cockpit = "panes"
    nose_length: float = 1.3
    nose_tip: float = 0.25
    nose_sharpness: float = 1.5
    windscreen_step: float = 0.08
    tail_length: float = 3.3
    tail_rise: float = 1.25
    wing_flex_m: float = 0.0
    main_axles: int = 1
    body_legs: bool = False


BUILT_IN_TYPES: tuple[AircraftType, ...] = (
    AircraftType(
        name="A320-200", length_m=37.57, span_m=34.10, height_m=11.76,
        fuselage_width_m=3.95, fuselage_height_m=4.14, belly_clearance_m=1.85,
        sweep_deg=25.0, dihedral_deg=5.1, wing_position=0.315,
        root_chord_m=7.0, kink=0.37, kink_chord_m=3.9, tip_chord_m=1.6,
        engines=2, engine_place="wing", engine_diameter_m=2.37, engine_length_m=4.3, engine_offsets_m=(5.75,),
        tail="conventional", tailplane_span_m=12.45, fin_chord_m=5.9, fin_sweep_deg=38.0,
        nose_gear_m=5.07, wheelbase_m=12.64, track_m=7.59,
        winglet="fence", winglet_height_m=1.6,
        nose_length=1.25, nose_tip=0.22, nose_sharpness=1.75, windscreen_step=0.05, tail_length=3.4, tail_rise=1.15,
    ),
    AircraftType(
        name="737-800", length_m=39.47, span_m=35.79, height_m=12.55,
        fuselage_width_m=3.76, fuselage_height_m=4.01, belly_clearance_m=1.35,
        sweep_deg=25.0, dihedral_deg=6.0, wing_position=0.335,
        root_chord_m=7.9, kink=0.33, kink_chord_m=4.1, tip_chord_m=1.6,
        engines=2, engine_place="wing", engine_diameter_m=2.15, engine_length_m=4.2, engine_offsets_m=(4.83,),
        tail="conventional", tailplane_span_m=14.35, fin_chord_m=6.0, fin_sweep_deg=39.0,
        nose_gear_m=4.0, wheelbase_m=15.60, track_m=5.72,
        winglet="blended", winglet_height_m=2.5, dorsal_m=4.4, flat_nacelles=True, cockpit="vee",
        nose_length=1.15, nose_tip=0.38, nose_sharpness=1.25, windscreen_step=0.16, tail_length=3.3, tail_rise=1.4,
    ),
    AircraftType(
        name="A350-900", length_m=66.80, span_m=64.75, height_m=17.05,
        fuselage_width_m=5.96, fuselage_height_m=6.09, belly_clearance_m=2.3,
        sweep_deg=31.9, dihedral_deg=5.5, wing_position=0.30,
        root_chord_m=12.2, kink=0.38, kink_chord_m=7.2, tip_chord_m=1.9,
        engines=2, engine_place="wing", engine_diameter_m=3.85, engine_length_m=6.6, engine_offsets_m=(10.5,),
        tail="conventional", tailplane_span_m=18.9, fin_chord_m=8.9, fin_sweep_deg=41.0,
        nose_gear_m=4.63, wheelbase_m=28.66, track_m=10.60,
        winglet="curved", winglet_height_m=3.1, cockpit="mask",
        nose_length=1.35, nose_tip=0.22, nose_sharpness=1.7, windscreen_step=0.0, tail_length=3.4, tail_rise=1.2,
        wing_flex_m=1.2, main_axles=2,
    ),
    AircraftType(
        name="787-9", length_m=62.81, span_m=60.12, height_m=17.02,
        fuselage_width_m=5.77, fuselage_height_m=5.94, belly_clearance_m=1.9,
        sweep_deg=32.2, dihedral_deg=6.5, wing_position=0.295,
        root_chord_m=11.6, kink=0.36, kink_chord_m=6.6, tip_chord_m=2.4,
        engines=2, engine_place="wing", engine_diameter_m=3.6, engine_length_m=5.6, engine_offsets_m=(9.9,),
        tail="conventional", tailplane_span_m=19.8, fin_chord_m=9.9, fin_sweep_deg=43.0,
        nose_gear_m=5.6, wheelbase_m=25.83, track_m=9.80,
        winglet="raked", cockpit="vee", dorsal_m=3.0,
        nose_length=1.65, nose_tip=0.30, nose_sharpness=1.2, windscreen_step=0.0, tail_length=3.0, tail_rise=1.0,
        wing_flex_m=2.6, main_axles=2,
    ),
    AircraftType(
        name="747-400", length_m=70.66, span_m=64.44, height_m=19.41,
        fuselage_width_m=6.50, fuselage_height_m=7.85, belly_clearance_m=2.1,
        sweep_deg=37.5, dihedral_deg=7.0, wing_position=0.285,
        root_chord_m=14.4, kink=0.40, kink_chord_m=8.2, tip_chord_m=3.6,
        engines=4, engine_place="wing", engine_diameter_m=2.9, engine_length_m=5.6, engine_offsets_m=(11.68, 20.83),
        tail="conventional", tailplane_span_m=22.17, fin_chord_m=11.3, fin_sweep_deg=46.0,
        nose_gear_m=7.7, wheelbase_m=25.60, track_m=11.0,
        winglet="canted", winglet_height_m=2.0, decks=1.4, hump_m=1.3, cockpit="band",
        nose_length=1.25, nose_tip=0.25, nose_sharpness=1.45, windscreen_step=0.0, tail_length=3.1, tail_rise=1.15,
        main_axles=2, body_legs=True,
    ),
    AircraftType(
        name="A380-800", length_m=72.72, span_m=79.75, height_m=24.09,
        fuselage_width_m=7.14, fuselage_height_m=8.41, belly_clearance_m=2.4,
        sweep_deg=33.5, dihedral_deg=5.6, wing_position=0.275,
        root_chord_m=17.7, kink=0.37, kink_chord_m=10.8, tip_chord_m=3.9,
        engines=4, engine_place="wing", engine_diameter_m=3.75, engine_length_m=6.0, engine_offsets_m=(14.9, 25.7),
        tail="conventional", tailplane_span_m=30.37, fin_chord_m=13.0, fin_sweep_deg=40.0,
        nose_gear_m=5.0, wheelbase_m=30.4, track_m=12.5,
        winglet="fence", winglet_height_m=2.4, decks=2.0, cockpit="band",
        nose_length=1.1, nose_tip=0.38, nose_sharpness=1.7, windscreen_step=0.0, tail_length=3.0, tail_rise=1.1,
        wing_flex_m=1.0, main_axles=2, body_legs=True,
    ),
    AircraftType(
        name="MD-11", length_m=61.21, span_m=51.66, height_m=17.60,
        fuselage_width_m=6.02, fuselage_height_m=6.02, belly_clearance_m=2.1,
        sweep_deg=35.0, dihedral_deg=6.0, wing_position=0.325,
        root_chord_m=11.5, kink=0.36, kink_chord_m=6.8, tip_chord_m=2.7,
        engines=3, engine_place="wing+fin", engine_diameter_m=2.95, engine_length_m=5.8, engine_offsets_m=(8.2,),
        tail="conventional", tailplane_span_m=18.03, fin_chord_m=8.0, fin_sweep_deg=38.0,
        nose_gear_m=6.6, wheelbase_m=24.61, track_m=10.57,
        winglet="split", winglet_height_m=2.5, cockpit="panes",
        nose_length=1.2, nose_tip=0.28, nose_sharpness=1.6, windscreen_step=0.07, tail_length=2.6, tail_rise=1.25,
        main_axles=2, body_legs=False,
    ),
    AircraftType(
        name="MD-83", length_m=45.06, span_m=32.87, height_m=9.05,
        fuselage_width_m=3.34, fuselage_height_m=3.61, belly_clearance_m=1.05,
        sweep_deg=24.5, dihedral_deg=3.0, wing_position=0.46,
        root_chord_m=7.0, kink=0.33, kink_chord_m=4.4, tip_chord_m=1.3,
        engines=2, engine_place="rear", engine_diameter_m=1.75, engine_length_m=6.0, engine_offsets_m=(2.75,),
        tail="t-tail", tailplane_span_m=12.24, fin_chord_m=5.6, fin_sweep_deg=44.0,
        nose_gear_m=2.4, wheelbase_m=22.05, track_m=5.08,
        dorsal_m=2.0, cockpit="panes",
        nose_length=1.4, nose_tip=0.28, nose_sharpness=1.35, windscreen_step=0.14, tail_length=2.6, tail_rise=1.0,
    ),
    AircraftType(
        name="ATR 72-600", length_m=27.17, span_m=27.05, height_m=7.65,
        fuselage_width_m=2.865, fuselage_height_m=2.865, belly_clearance_m=0.75,
        sweep_deg=2.0, dihedral_deg=2.0, wing_position=0.405,
        root_chord_m=2.75, kink=0.36, kink_chord_m=2.75, tip_chord_m=1.5,
        engines=2, engine_place="high-wing", engine_diameter_m=1.25, engine_length_m=4.4, engine_offsets_m=(4.05,),
        tail="t-tail", tailplane_span_m=7.31, fin_chord_m=3.9, fin_sweep_deg=33.0,
        nose_gear_m=1.7, wheelbase_m=10.77, track_m=4.10,
        propellers=True, high_wing=True, dorsal_m=3.6, cockpit="panes",
        nose_length=1.55, nose_tip=0.35, nose_sharpness=1.3, windscreen_step=0.16, tail_length=3.2, tail_rise=1.35,
    ),
    AircraftType(
        name="BAe 146-300", length_m=30.99, span_m=26.34, height_m=8.61,
        fuselage_width_m=3.56, fuselage_height_m=3.56, belly_clearance_m=0.85,
        sweep_deg=15.0, dihedral_deg=-3.0, wing_position=0.375,
        root_chord_m=4.9, kink=0.35, kink_chord_m=3.6, tip_chord_m=1.6,
        engines=4, engine_place="high-wing", engine_diameter_m=1.5, engine_length_m=3.2,
        engine_offsets_m=(4.25, 7.5),
        tail="t-tail", tailplane_span_m=11.09, fin_chord_m=5.4, fin_sweep_deg=36.0,
        nose_gear_m=2.6, wheelbase_m=12.52, track_m=4.72,
        high_wing=True, dorsal_m=1.2, cockpit="panes",
        nose_length=1.25, nose_tip=0.30, nose_sharpness=1.4, windscreen_step=0.12, tail_length=2.4, tail_rise=1.0,
    ),
)  # fmt: skip
