from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from aerofuse.ingest.listing import Listing, choose_types, refuse_repeated_files


def _listing(**counts: int) -> Listing:
    types = [name for name, count in counts.items() for _ in range(count)]
    table = pd.DataFrame({"typename": types, "airlinename": [f"Air {name}" for name in types]})
    places = pd.Series([f"row {number}" for number in range(2, 2 + len(types))])
    return Listing(table, places, tuple(counts), tuple(f"Air {name}" for name in counts))


def test_without_a_choice_a_listing_stays_the_same() -> None:
    listing = _listing(A320=2, B747=1)
    assert choose_types(listing, None, 1) is listing


@pytest.mark.parametrize(("only", "least"), [(["A320", "B747", "A320"], 0), (None, 2), (["A320", "B747", "C130"], 2)])
def test_only_chosen_types_stay(only: list[str] | None, least: int) -> None:
    chosen = choose_types(_listing(A320=2, C130=1, B747=3), only, least)
    assert chosen.types == ("A320", "B747")
    assert chosen.airlines == ("Air A320", "Air B747")
    assert chosen.table["typename"].value_counts().to_dict() == {"A320": 2, "B747": 3}
    assert chosen.places.to_dict() == dict(enumerate(["row 2", "row 3", "row 5", "row 6", "row 7"]))
    assert chosen.left_out_types == {"C130": 1}


@pytest.mark.parametrize(
    ("only", "least", "message"),
    [
        (["A330", "Concorde"], 1, "'A330' (did you mean 'A320'?), 'Concorde'; they have 'A320', 'B747'"),
        (None, 9, "data.min_photos is 9, and no type has so many photos; 'B747' has most, 3"),
        (["A320"], 3, "'A320' has most, 2"),
    ],
)
def test_a_choice_that_leaves_nothing_is_refused(only: list[str] | None, least: int, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        choose_types(_listing(A320=2, B747=3), only, least)


def test_many_repeated_files_are_counted() -> None:
    table = pd.DataFrame({"path": [Path(f"{number}.jpg") for number in range(12)] * 2})
    places = pd.Series([f"row {number}" for number in range(24)])
    with pytest.raises(ValueError, match=r"12 photos are listed more than once.*\n  row 0, row 12: 0\.jpg") as stop:
        refuse_repeated_files(table, places)
    assert str(stop.value).endswith("and 2 more")
