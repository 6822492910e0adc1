"""Airlines: shared palettes, distinct layouts, readable titles, visible motifs."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import numpy as np
import pytest

from aerofuse.synthetic.airframes import BUILT_IN_TYPES
from aerofuse.synthetic.liveries import BUILT_IN_LIVERIES, Livery, Motif, Stripe, draw_motif
from aerofuse.synthetic.mesh import FIN, PORT, STARBOARD, Region
from aerofuse.synthetic.paint import Texture, _title_mask, _turned, texture
from tools.random_fleet import layout

every_livery = pytest.mark.parametrize("livery", BUILT_IN_LIVERIES, ids=lambda livery: livery.name)


def cell(sheet: Texture, region: Region) -> Texture:
    x, y, width, height = region
    return sheet[y : y + height, x : x + width]


def test_no_palette_tells_an_airline() -> None:
    assert len(BUILT_IN_LIVERIES) == 12
    assert set(Counter(livery.palette for livery in BUILT_IN_LIVERIES).values()) == {3}


def test_every_layout_is_its_own() -> None:
    assert len({layout(livery) for livery in BUILT_IN_LIVERIES}) == len(BUILT_IN_LIVERIES)
    assert len({livery.motif for livery in BUILT_IN_LIVERIES}) == len(BUILT_IN_LIVERIES)


@every_livery
def test_its_fin_shows_two_colours(livery: Livery) -> None:
    fin = cell(texture(BUILT_IN_TYPES[0], livery, 0), FIN).reshape(-1, 3)
    shares = [(fin == np.array(livery.palette[k])).all(axis=1).mean() for k in (livery.fin, livery.motif_colour)]
    assert min(shares) > 0.08


@every_livery
def test_title_reads_forward_on_both_sides(livery: Livery) -> None:
    title = _title_mask(BUILT_IN_TYPES[0], livery)
    assert title.any() == (livery.title != "none")
    sides = [cell(texture(BUILT_IN_TYPES[0], livery, 0), region) for region in (PORT, STARBOARD)]
    # Windows and doors are painted over the letters, so a side is compared where its own mask is full.
    for side, mask in zip(sides, (title, _turned(title)), strict=True):
        lettered = (side[mask == 255] == np.array(livery.palette[livery.title_colour])).all(axis=1)
        assert lettered.size == 0 or lettered.mean() > 0.6
    if livery.title != "none":
        columns = np.flatnonzero(title.any(axis=0))
        lettering = title[:, columns[0] : columns[-1] + 1]
        assert np.array_equal(_turned(title)[:, columns[0] : columns[-1] + 1], lettering[:, ::-1])
        assert not np.array_equal(lettering, lettering[:, ::-1])


@pytest.mark.parametrize("motif", get_args(Motif))
def test_motif_covers_part_of_the_fin(motif: str) -> None:
    fin = np.zeros((128, 128, 3), np.uint8)
    draw_motif(fin, motif, (255, 255, 255), (0, 0, 0))  # type: ignore[arg-type]
    assert 0.08 < (fin > 127).mean() < 0.8


@pytest.mark.parametrize("stripe", get_args(Stripe))
def test_every_cheat_line_is_worn_by_an_airline(stripe: str) -> None:
    assert stripe in {livery.stripe for livery in BUILT_IN_LIVERIES}
