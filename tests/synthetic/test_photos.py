"""Photos: same bytes everywhere, labels from the drawing, every type at every size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from aerofuse.data.photo import Photo
from aerofuse.synthetic import photos as photos_module
from aerofuse.synthetic.airframes import BUILT_IN_TYPES, AircraftType
from aerofuse.synthetic.fleet import Airframe, Fleet, built_in_fleet
from aerofuse.synthetic.liveries import BUILT_IN_LIVERIES
from aerofuse.synthetic.params import SyntheticParams
from aerofuse.synthetic.photos import draw_photo, draw_photos, photo_airframe, photo_filename
from aerofuse.synthetic.render import Layer

CONFIG = SyntheticParams(num_images=100, num_airframes=40)
FLEET = built_in_fleet(40, seed=0)


def same(first: Photo, second: Photo) -> bool:
    labels = ("filename", "typename", "airlinename", "clarity", "block", "registration")
    return np.array_equal(first.image, second.image) and all(getattr(first, k) == getattr(second, k) for k in labels)


def only(aircraft: AircraftType) -> Fleet:
    """A fleet of one."""
    return Fleet((aircraft,), BUILT_IN_LIVERIES[:1], (Airframe("QA-AAAA", 0, 0),))


@pytest.mark.parametrize("size", [64, 96, 128, 224])
@pytest.mark.parametrize("aircraft", BUILT_IN_TYPES, ids=lambda a: a.name)
def test_every_type_draws_at_every_size(aircraft: AircraftType, size: int) -> None:
    photo = draw_photo(only(aircraft), 1, CONFIG, size, seed=0)
    assert photo.image.shape == (size, size, 3)
    assert photo.image.dtype == np.uint8
    assert photo.image.std() > 5
    assert photo.typename == aircraft.name


def test_another_type_makes_another_image() -> None:
    sharp = SyntheticParams(degradation=0, occluded_fraction=0, flying_fraction=0)
    images = [draw_photo(only(aircraft), 3, sharp, 64, seed=0).image.astype(int) for aircraft in BUILT_IN_TYPES]
    for k, image in enumerate(images):
        # The scene is drawn from the same numbers, so what differs is the aircraft (and how far off it is seen).
        assert all(np.abs(image - other).mean() > 1 for other in images[:k])


def test_same_bytes_in_any_order_and_process() -> None:
    indices = [7, 0, 31, 18, 2]
    alone = [draw_photo(FLEET, index, CONFIG, 64, seed=9) for index in indices]
    backwards = [draw_photo(FLEET, index, CONFIG, 64, seed=9) for index in reversed(indices)][::-1]
    elsewhere = list(draw_photos(FLEET, indices, CONFIG, 64, seed=9, processes=2))
    assert [photo.filename for photo in elsewhere] == [photo_filename(index) for index in indices]
    assert all(same(a, b) and same(a, c) for a, b, c in zip(alone, backwards, elsewhere, strict=True))


def test_another_seed_or_index_is_another_photo() -> None:
    first = draw_photo(FLEET, 0, CONFIG, 64, seed=0)
    assert not np.array_equal(first.image, draw_photo(FLEET, 0, CONFIG, 64, seed=1).image)
    assert not np.array_equal(first.image, draw_photo(FLEET, 1, CONFIG, 64, seed=0).image)


def test_labels_are_what_was_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[Layer, ...]] = []
    composed = photos_module._composed

    def watched(behind: np.ndarray, layers: tuple[Layer, ...]) -> np.ndarray:
        drawn.append(layers)
        return composed(behind, layers)

    monkeypatch.setattr(photos_module, "_composed", watched)
    for index in range(30):
        photo = draw_photo(FLEET, index, CONFIG, 64, seed=2)
        airframe = photo_airframe(FLEET, index, seed=2)
        assert photo.registration == airframe.registration
        assert photo.typename == FLEET.types[airframe.type_index].name
        assert photo.airlinename == FLEET.liveries[airframe.livery_index].name
        plane, before = drawn[-1]
        assert photo.block == (plane.mask & before.mask).sum() / plane.mask.sum()


def test_clarity_and_block_are_spread() -> None:
    photos = [draw_photo(FLEET, index, CONFIG, 64, seed=3) for index in range(240)]
    clarity, block = np.array([[photo.clarity, photo.block] for photo in photos]).T
    assert np.histogram(clarity, 5, (0, 1))[0].min() > 24
    assert np.histogram(block, [0.05, 0.25, 0.5, 0.8])[0].min() > 12
    assert (block < 0.05).mean() == pytest.approx(1 - SyntheticParams().occluded_fraction, abs=0.12)
    assert block.max() <= CONFIG.max_block


def test_what_the_config_limits_stays_limited() -> None:
    easy = SyntheticParams(degradation=0.2, occluded_fraction=1, max_block=0.3)
    photos = [draw_photo(FLEET, index, easy, 64, seed=4) for index in range(40)]
    assert min(photo.clarity or 0 for photo in photos) >= 0.8 - 1e-9
    assert 0.1 < max(photo.block or 0 for photo in photos) <= 0.3


def test_airline_tells_nothing_of_the_type() -> None:
    fleet = built_in_fleet(600, seed=1)
    table = np.zeros((10, 12), int)
    for airframe in fleet.airframes:
        table[airframe.type_index, airframe.livery_index] += 1
    assert table.min() == table.max() == 5
    assert len({airframe.registration for airframe in fleet.airframes}) == 600


def test_airframes_recur() -> None:
    registrations = [photo_airframe(FLEET, index, seed=0).registration for index in range(200)]
    assert len(set(registrations)) == 40


@pytest.mark.parametrize(("size", "index"), [(16, 0), (64, -1)])
def test_nonsense_is_refused(size: int, index: int) -> None:
    with pytest.raises(ValueError, match="need a size of at least 32"):
        draw_photo(FLEET, index, CONFIG, size, seed=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"elevation_range_deg": (10, -10)},
        {"framing_range": (0.2, 0.9)},
        {"max_block": 0.95},
        {"seed": 1},
        {"degradation": 1.5},
    ],
)
def test_config_refuses_what_it_cannot_draw(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SyntheticParams.model_validate(wrong)


def test_type_can_be_changed_only_by_making_another() -> None:
    longer = replace(BUILT_IN_TYPES[0], length_m=44.5)
    assert longer != BUILT_IN_TYPES[0]
    first, second = (draw_photo(only(a), 0, CONFIG, 64, seed=0).image for a in (BUILT_IN_TYPES[0], longer))
    assert not np.array_equal(first, second)
