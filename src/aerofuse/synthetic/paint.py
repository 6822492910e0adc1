"""Painting the texture sheet of one aircraft type in one livery."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from aerofuse.synthetic.airframes import AircraftType
from aerofuse.synthetic.fuselage import nose_length_m, tail_length_m
from aerofuse.synthetic.liveries import Colour, Livery, draw_motif
from aerofuse.synthetic.mesh import (
    COWL,
    FIN,
    PORT,
    SOLIDS,
    STARBOARD,
    TAILPLANE,
    TEXTURE_HEIGHT,
    TEXTURE_WIDTH,
    WING_BELOW,
    WING_TOP,
    WINGLET,
    Region,
    solid,
)  # fmt: skip

Texture = npt.NDArray[np.uint8]

_PLAIN: dict[str, Colour] = {
    "dark": (26, 27, 30), "lip": (205, 208, 212), "tyre": (34, 34, 36), "strut": (150, 154, 158),
    "propeller": (62, 64, 68), "exhaust": (92, 84, 76), "pylon": (200, 203, 207), "fan": (48, 50, 54),
    "hub": (150, 152, 155), "fairing": (196, 199, 204), "spinner": (60, 62, 66),
}  # fmt: skip
_GLASS: Colour = (30, 36, 46)
_ROWS, _COLUMNS = PORT[3], PORT[2]


def _row(up: float) -> int:
    """Row of the fuselage cell at a share of the half girth, 0 belly .. 1 crown."""
    return round((1 - up) * _ROWS)


def _cell(sheet: Texture, region: Region) -> Texture:
    x, y, width, height = region
    return sheet[y : y + height, x : x + width]


def _resized(image: Texture, size: tuple[int, int]) -> Texture:
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


@lru_cache(maxsize=512)
def texture(aircraft: AircraftType, livery: Livery, halvings: int) -> Texture:
    """Return the sheet [384, 512, 3] RGB, halved `halvings` (0..2) times so that distant windows do not sparkle."""
    if halvings:
        finer = texture(aircraft, livery, halvings - 1)
        return _resized(finer, (finer.shape[1] // 2, finer.shape[0] // 2))
    colours = livery.palette
    sheet = np.full((TEXTURE_HEIGHT, TEXTURE_WIDTH, 3), 200, np.uint8)
    _paint_fuselage(sheet, aircraft, livery)
    _cell(sheet, FIN)[:] = colours[livery.fin]
    fin = np.ascontiguousarray(_cell(sheet, FIN))
    draw_motif(fin, livery.motif, colours[livery.motif_colour], colours[livery.fin])
    # The rudder's hinge line.
    cv2.line(fin, (74, 128), (112, 0), tuple(int(0.82 * c) for c in colours[livery.fin]), 1, cv2.LINE_AA)
    _cell(sheet, FIN)[:] = fin
    _paint_wings(sheet)
    _cell(sheet, WINGLET)[:] = colours[livery.winglet]
    cowl = _cell(sheet, COWL)
    cowl[:] = colours[livery.engine]
    cowl[:, 50:] = (170, 172, 176)
    cowl[:, 30:32] = (0.8 * np.array(colours[livery.engine])).astype(np.uint8)
    for name in SOLIDS:
        _cell(sheet, solid(name))[:] = _PLAIN[name]
    belly = np.array(colours[livery.belly], np.float32)
    _cell(sheet, solid("fairing"))[:] = (0.85 * belly + 0.15 * 190).astype(np.uint8)
    _cell(sheet, solid("spinner"))[:] = (0.5 * np.array(colours[livery.engine]) + 30).astype(np.uint8)
    return sheet


def _paint_wings(sheet: Texture) -> None:
    """Grey wings with a bright leading edge, flap lines and a walkway; u runs along the chord, rows from the tip."""
    top = _cell(sheet, WING_TOP)
    top[:] = (178, 182, 187)
    top[:, :14] = (222, 224, 227)
    top[:, 92:94] = (120, 124, 130)
    top[::22, 92:] = (128, 132, 138)
    top[20:118, 40:44] = (160, 164, 169)
    below = _cell(sheet, WING_BELOW)
    below[:] = (168, 172, 178)
    below[:, :10] = (206, 208, 212)
    below[:, 92:94] = (120, 124, 130)
    # Flap track fairings.
    for row in (16, 30, 44, 56):
        below[row : row + 3, 70:] = (140, 144, 150)
    tail = _cell(sheet, TAILPLANE)
    tail[:] = (190, 193, 198)
    tail[:, :6] = (222, 224, 227)
    tail[:, 44:46] = (130, 134, 140)


def _paint_fuselage(sheet: Texture, aircraft: AircraftType, livery: Livery) -> None:
    """Both sides of the fuselage: colours, stripes, titles, doors, windows and cockpit."""
    colours = livery.palette
    side = np.full((_ROWS, _COLUMNS, 3), colours[livery.upper], np.uint8)
    side[_row(livery.belly_level) :] = colours[livery.belly]
    _paint_stripe(side, livery)
    if livery.rear_sweep:
        start = _COLUMNS * (1 - 0.62 * tail_length_m(aircraft) / aircraft.length_m)
        corners = np.array(
            [[start - 34, 0], [_COLUMNS, 0], [_COLUMNS, _ROWS], [start + 70, _ROWS], [start + 12, _ROWS // 2]]
        )
        cv2.fillPoly(side, [corners.astype(np.int32)], colours[livery.fin], cv2.LINE_AA)
    title = _title_mask(aircraft, livery)
    for region, mask in ((PORT, title), (STARBOARD, _turned(title))):
        painted = side.copy()
        share = mask[..., None].astype(np.float32) / 255
        painted = (painted * (1 - share) + np.array(colours[livery.title_colour], np.float32) * share).astype(np.uint8)
        _paint_openings(painted, aircraft)
        _cell(sheet, region)[:] = painted


def _paint_stripe(side: Texture, livery: Livery) -> None:
    """The cheat line."""
    colour = livery.palette[livery.stripe_colour]
    second = livery.palette[1 if livery.stripe_colour != 1 else 2]
    if livery.stripe == "single":
        side[_row(0.50) : _row(0.435)] = colour
    elif livery.stripe == "double":
        side[_row(0.50) : _row(0.45)] = colour
        side[_row(0.41) : _row(0.37)] = second
    elif livery.stripe == "broad":
        side[_row(0.60) : _row(0.40)] = colour
    elif livery.stripe in ("rising", "wave"):
        columns = np.arange(_COLUMNS)
        share = columns / _COLUMNS
        if livery.stripe == "rising":
            middle = 0.36 + 0.62 * np.clip((share - 0.30) / 0.66, 0, 1) ** 2.2
        else:
            middle = 0.44 + 0.14 * np.sin(2 * np.pi * (share * 1.15 - 0.1))
        width = 0.05 + 0.07 * share
        low, high = (1 - middle - width) * _ROWS, (1 - middle + width) * _ROWS
        outline = np.concatenate([np.stack([columns, low], 1), np.stack([columns, high], 1)[::-1]])
        cv2.fillPoly(side, [np.round(outline).astype(np.int32)], colour, cv2.LINE_AA)


def _title_mask(aircraft: AircraftType, livery: Livery) -> npt.NDArray[np.uint8]:
    """Where the airline's name stands on the port side [96, 512], 0..255."""
    mask = np.zeros((_ROWS, _COLUMNS), np.uint8)
    if livery.title == "none":
        return mask
    large = livery.title == "large"
    rows = 40 if large else 19
    centre = _row(0.60 if large else 0.70)
    if aircraft.decks > 1 and not large:
        centre = _row(0.57)
    face = np.zeros((60, 460), np.uint8)
    (wide, _), _ = cv2.getTextSize(livery.name.upper(), cv2.FONT_HERSHEY_DUPLEX, 1.5, 4)
    cv2.putText(face, livery.name.upper(), (6, 46), cv2.FONT_HERSHEY_DUPLEX, 1.5, 255, 5, cv2.LINE_AA)
    face = face[6:52, : min(wide + 12, 460)]
    # Letters keep their shape whatever the type's length in texels per metre.
    per_metre = _COLUMNS / aircraft.length_m
    up_per_metre = _ROWS / (np.pi / 2 * aircraft.fuselage_height_m)
    columns = int(rows * face.shape[1] / face.shape[0] * per_metre / up_per_metre)
    columns = min(columns, int(_COLUMNS * (0.50 if large else 0.36)))
    face = _resized(face, (columns, rows))
    left = round(_COLUMNS * (0.05 + nose_length_m(aircraft) / aircraft.length_m))
    top = centre - rows // 2
    mask[top : top + rows, left : left + columns] = face
    return mask


def _turned(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The title for the side whose columns run against the reading direction."""
    columns = np.flatnonzero(mask.any(axis=0))
    if not len(columns):
        return mask
    turned = mask.copy()
    part = slice(columns[0], columns[-1] + 1)
    turned[:, part] = mask[:, part][:, ::-1]
    return turned


def _paint_openings(side: Texture, aircraft: AircraftType) -> None:
    """Doors, window rows and the cockpit, on one side [96, 512, 3]."""
    length = aircraft.length_m
    per_metre = _COLUMNS / length
    first = nose_length_m(aircraft) * per_metre * 1.12
    last = _COLUMNS - tail_length_m(aircraft) * per_metre * 0.62
    doors = [first, last]
    if length >= 50:
        doors[1:1] = [first + 0.30 * (last - first), 0.4 * first + 0.6 * last]
    line = (0.62 * side[_row(0.55), _COLUMNS // 3].astype(np.float32) + 40).tolist()
    half = max(2, round(0.45 * per_metre))
    for x in doors:
        cv2.rectangle(side, (round(x) - half, _row(0.62)), (round(x) + half, _row(0.44)), line, 1)
    pitch = max(1.05 * per_metre, 5.0)
    deck = [(0.555, first + 3 * half, last - 3 * half)]
    if aircraft.decks >= 2:
        deck = [(0.49, first + 3 * half, last - 3 * half), (0.68, first, last - 10)]
    elif aircraft.decks > 1:
        deck = [(0.50, first * 0.8, last - 3 * half), (0.74, first * 0.85, 0.27 * _COLUMNS)]
    for up, start, stop in deck:
        row = _row(up)
        for x in np.arange(start, stop, pitch):
            if min(abs(x - door) for door in doors) > half + 2:
                column = round(x)
                side[row - 2 : row + 3, column : column + max(2, round(0.45 * pitch))] = _GLASS
    _paint_cockpit(side, aircraft, nose_length_m(aircraft) * per_metre)


def _paint_cockpit(side: Texture, aircraft: AircraftType, nose: float) -> None:
    """Windscreen and side panes; `nose` is the nose's length in texels."""

    def fill(points: list[tuple[float, float]], colour: Colour) -> None:
        corners = np.array([[x * nose, (1 - up) * _ROWS] for x, up in points])
        cv2.fillPoly(side, [np.round(corners).astype(np.int32)], colour, cv2.LINE_AA)

    kind = aircraft.cockpit
    if kind == "mask":
        around = [(0.17, 1.0), (0.16, 0.60), (0.30, 0.55), (0.56, 0.60), (0.62, 0.70), (0.40, 0.86), (0.30, 1.0)]
        fill(around, (22, 24, 28))
        fill([(0.22, 0.95), (0.21, 0.68), (0.30, 0.66), (0.33, 0.92)], (52, 62, 76))
    elif kind == "vee":
        fill([(0.20, 1.0), (0.17, 0.68), (0.34, 0.62), (0.40, 0.66), (0.36, 0.84), (0.29, 1.0)], _GLASS)
    elif kind == "band":
        if aircraft.hump_m:
            fill([(0.27, 1.0), (0.25, 0.86), (0.38, 0.83), (0.40, 0.90), (0.34, 1.0)], _GLASS)
        else:
            fill([(0.20, 1.0), (0.18, 0.66), (0.36, 0.63), (0.38, 0.72), (0.28, 1.0)], _GLASS)
    else:
        fill([(0.19, 1.0), (0.18, 0.66), (0.44, 0.62), (0.47, 0.70), (0.36, 0.80), (0.28, 1.0)], _GLASS)
    frame = side[_row(0.9), round(0.6 * nose)].tolist()
    if kind in ("panes", "vee"):
        for x in (0.26, 0.34):
            cv2.line(side, (round(x * nose), _row(0.86)), (round((x - 0.02) * nose), _row(0.6)), frame, 1, cv2.LINE_AA)
