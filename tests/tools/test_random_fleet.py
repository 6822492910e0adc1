"""The types and airlines for pretraining keep away from the built-in ones and from each other."""

from __future__ import annotations

import numpy as np
import pytest

import tools.random_fleet
from aerofuse.synthetic.airframes import BUILT_IN_TYPES, AircraftType
from aerofuse.synthetic.liveries import BUILT_IN_LIVERIES
from aerofuse.synthetic.params import SyntheticParams
from aerofuse.synthetic.photos import draw_photo
from tools.random_fleet import MIN_DISTANCE, layout, random_fleet, random_livery, random_type, shape_distance


@pytest.mark.parametrize("aircraft", BUILT_IN_TYPES, ids=lambda a: a.name)
def test_only_its_near_twin_is_near(aircraft: AircraftType) -> None:
    twins = [{"A320-200", "737-800"}, {"A350-900", "787-9"}]
    others = [other for other in BUILT_IN_TYPES if other is not aircraft]
    nearest = min(others, key=lambda other: shape_distance(aircraft, other))
    if any(aircraft.name in pair for pair in twins):
        assert {aircraft.name, nearest.name} in twins
    else:
        assert shape_distance(aircraft, nearest) > 2 * MIN_DISTANCE


def test_random_types_keep_their_distance() -> None:
    types = random_fleet(num_types=12, num_airlines=2, num_airframes=1, seed=4).types
    for k, aircraft in enumerate(types):
        others = (*BUILT_IN_TYPES, *types[:k])
        assert min(shape_distance(aircraft, other) for other in others) >= MIN_DISTANCE


def test_random_type_refuses_when_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools.random_fleet, "MIN_DISTANCE", 40.0)
    monkeypatch.setattr(tools.random_fleet, "_MAX_DRAWS", 20)
    with pytest.raises(ValueError, match="fewer types"):
        random_type(np.random.default_rng(0), "crowded out")


def test_random_liveries_are_none_of_the_twelve() -> None:
    rng = np.random.default_rng(5)
    layouts = {layout(livery) for livery in BUILT_IN_LIVERIES}
    drawn = [random_livery(rng, f"airline {k}") for k in range(300)]
    assert layouts.isdisjoint(layout(livery) for livery in drawn)
    assert len(set(drawn)) == len(drawn)


def test_random_airlines_have_names_of_their_own() -> None:
    names = [livery.name for livery in random_fleet(2, 40, 2, seed=1).liveries]
    assert len(set(names)) == 40
    assert set(names).isdisjoint(livery.name for livery in BUILT_IN_LIVERIES)


def test_a_random_fleet_shares_nothing_with_the_built_in_one() -> None:
    fleet = random_fleet(num_types=6, num_airlines=5, num_airframes=30, seed=0)
    assert fleet == random_fleet(num_types=6, num_airlines=5, num_airframes=30, seed=0)
    assert {a.name for a in fleet.types}.isdisjoint(a.name for a in BUILT_IN_TYPES)
    assert {layout(a) for a in fleet.liveries}.isdisjoint(layout(a) for a in BUILT_IN_LIVERIES)
    params = SyntheticParams(num_images=100, num_airframes=40)
    for index in range(12):
        assert draw_photo(fleet, index, params, 64, seed=0).image.std() > 5
