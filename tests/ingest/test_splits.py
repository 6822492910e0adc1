from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from aerofuse.ingest.params import SPLITS
from aerofuse.ingest.splits import OTHER, assign_splits, merge_small

SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}


def _photos(num_photos: int = 3000) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    airframe = rng.integers(0, 400, num_photos)
    return pd.DataFrame({"registration": [f"R{a}" for a in airframe], "typename": [f"T{a % 10}" for a in airframe]})


def test_no_airframe_is_on_two_sides_and_every_photo_has_a_side() -> None:
    photos = _photos()
    split = assign_splits(photos["registration"], photos["typename"], SHARES, seed=0)
    assert split.isin(SPLITS).all()
    assert split.groupby(photos["registration"]).nunique().eq(1).all()


def test_every_type_is_divided_by_the_shares() -> None:
    photos = _photos()
    split = assign_splits(photos["registration"], photos["typename"], SHARES, seed=0)
    for _, of_type in split.groupby(photos["typename"]):
        shares = of_type.value_counts(normalize=True)
        for name, share in SHARES.items():
            assert shares[name] == pytest.approx(share, abs=0.03)


def test_the_seed_decides() -> None:
    photos = _photos()
    first, again, other = (assign_splits(photos["registration"], photos["typename"], SHARES, s) for s in (0, 0, 1))
    assert first.equals(again)
    assert not first.equals(other)


def test_the_order_of_the_photos_does_not_matter() -> None:
    photos = _photos()
    mixed = photos.sample(frac=1, random_state=0)
    split = assign_splits(photos["registration"], photos["typename"], SHARES, seed=0)
    assert assign_splits(mixed["registration"], mixed["typename"], SHARES, seed=0).sort_index().equals(split)


def test_a_type_with_too_few_airframes_is_named() -> None:
    photos = pd.DataFrame({"registration": ["a", "a", "b"], "typename": ["Concorde"] * 3})
    with pytest.raises(ValueError, match=r"'Concorde' \(2\); add photos, leave them out, or set data.small_types"):
        assign_splits(photos["registration"], photos["typename"], SHARES, seed=0)


def test_small_types_are_merged_into_one() -> None:
    photos = pd.DataFrame(
        {"group": list("abcdefgh"), "typename": ["A320"] * 4 + ["Concorde"] * 2 + ["Comet"] + ["Trident"]}
    )
    merged = merge_small(photos["group"], photos["typename"])
    assert merged.tolist() == ["A320"] * 4 + [OTHER] * 4
    split = assign_splits(photos["group"], merged, SHARES, seed=0)
    assert set(split[merged == OTHER]) == set(SPLITS)


def test_a_type_with_the_name_of_the_merged_class_is_to_be_renamed() -> None:
    for name in (OTHER, "Other", "ot\u200bher"):
        photos = pd.DataFrame({"group": list("abcdefg"), "typename": ["A320"] * 3 + [name] * 3 + ["Comet"]})
        with pytest.raises(
            ValueError, match=r"makes one class 'other' of 'Comet' \(1\), and there .*; rename that type in your table"
        ):
            merge_small(photos["group"], photos["typename"])
        assert merge_small(photos["group"][:6], photos["typename"][:6]).tolist() == photos["typename"].tolist()[:6]


def test_a_merged_class_that_is_still_too_small_is_not_to_be_merged() -> None:
    photos = pd.DataFrame({"group": list("abcde"), "typename": ["A320"] * 3 + ["Comet"] * 2})
    with pytest.raises(ValueError, match=r"of 'Comet' \(2\); .* 'other' \(2\); add photos, or leave") as stop:
        merge_small(photos["group"], photos["typename"])
    assert "set data.small_types" not in str(stop.value)


def test_a_group_of_several_types_stays_whole() -> None:
    photos = pd.DataFrame({"group": list("aabbccddeeff"), "typename": ["A", "B"] * 3 + ["A", "A", "B", "B", "B", "B"]})
    photos = pd.concat([photos, pd.DataFrame({"group": list("uvwxyz"), "typename": ["A", "B"] * 3})], ignore_index=True)
    split = assign_splits(photos["group"], photos["typename"], SHARES, seed=0)
    assert split.groupby(photos["group"]).nunique().eq(1).all()
    assert split.notna().all()
