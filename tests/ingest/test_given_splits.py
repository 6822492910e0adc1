"""A split that came with the data, in memory and from a table of photos to the report."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from aerofuse.common.params import load_section
from aerofuse.ingest.given_splits import GIVEN, check_given_split, divided_groups, keep_given_split
from aerofuse.ingest.params import DataParams, Leaks, SplitParams
from aerofuse.ingest.prepare import prepare_photos
from aerofuse.ingest.sources import create_source
from aerofuse.ingest.summary import DataSummary, summarise

SHARES = SplitParams(train=0.6, validation=0.2, test=0.2, seed=0)


def _index(*rows: str) -> pd.DataFrame:
    """Rows such as `a A320 train 1 X`: name, type, given split, image, airframe; of one group by image or airframe."""
    index = pd.DataFrame(
        [row.split() for row in rows], columns=["filename", "typename", GIVEN, "near_duplicates", "registration"]
    ).replace("-", None)
    # Airframes in these rows have one image or images of their own.
    index["group"] = index["registration"].fillna(index["near_duplicates"])
    return index


LEAKING = _index(
    "a A320 train 1 -",
    "b A320 test 1 -",
    "c A320 validation 2 X",
    "d A320 test 3 X",
    "e A320 train 4 -",
    "f A320 validation 5 -",
    "g A320 test 6 -",
)


def test_a_given_split_is_kept() -> None:
    assert keep_given_split(LEAKING, SHARES, "report").tolist() == LEAKING[GIVEN].tolist()


def test_pictures_and_airframes_on_two_sides_are_found() -> None:
    assert [list(photos["filename"]) for photos in divided_groups(LEAKING, "near_duplicates")] == [["a", "b"]]
    assert [list(photos["filename"]) for photos in divided_groups(LEAKING, "registration")] == [["c", "d"]]
    assert divided_groups(LEAKING.drop(columns=GIVEN), "near_duplicates") == []


def test_moved_photos_leave_the_side_where_they_would_make_a_score_too_good() -> None:
    moved = keep_given_split(LEAKING, SHARES, "move")
    assert dict(zip(LEAKING["filename"], moved, strict=True)) == {
        "a": "train",
        "b": "train",
        "c": "validation",
        "d": "validation",
        "e": "train",
        "f": "validation",
        "g": "test",
    }


def test_leaks_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"data\.leaks is refuse, and 1 pictures and 1 airframes") as stop:
        keep_given_split(LEAKING, SHARES, "refuse")
    assert "\n  one picture: a (train), b (test)\n  one airframe: c (validation), d (test)\n" in str(stop.value)
    assert str(stop.value).endswith("or set data.leaks to move, or to report")
    clean = LEAKING[LEAKING["filename"].isin(["e", "f", "g"])]
    assert keep_given_split(clean, SHARES, "refuse").tolist() == ["train", "validation", "test"]


def test_a_test_split_of_nothing_but_leaks_is_not_moved_away() -> None:
    index = _index("a A320 train 1 -", "b A320 validation 2 -", "c A320 test 1 -")
    with pytest.raises(ValueError, match="all 1 photos of test show a picture or an airframe of another split"):
        keep_given_split(index, SHARES, "move")


def test_validation_is_cut_from_train_by_airframe_and_picture() -> None:
    rows = [f"{n} T{n % 2} train {n} R{n // 4 * 2 + n % 2}" for n in range(80)]
    index = _index(*rows, *(f"t{n} T{n % 2} test t{n} -" for n in range(20)))
    split = keep_given_split(index, SHARES, "report")
    assert split[80:].eq("test").all()
    assert split.groupby(index["group"]).nunique().eq(1).all()
    for _, of_type in split[:80].groupby(index["typename"]):
        assert of_type.value_counts().to_dict() == {"train": 30, "validation": 10}


def test_what_is_in_test_too_or_one_of_its_type_is_not_cut_for_validation() -> None:
    index = _index(
        "a A320 train 1 -",
        "b A320 test 1 -",
        "c A320 train 2 -",
        "d A320 train 3 -",
        "e B747 train 4 -",
        "f C130 train 2 -",  # one picture under two types
    )
    split = keep_given_split(index, SHARES, "report")
    assert split[[0, 1, 2, 4, 5]].tolist() == ["train", "test", "train", "train", "train"]
    assert split[3] == "validation"


def test_train_that_can_spare_nothing_is_named() -> None:
    with pytest.raises(ValueError, match="no photo of validation, and train can spare none"):
        keep_given_split(_index("a A320 train 1 X", "b A320 train 2 X", "c A320 test 3 -"), SHARES, "report")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a A320 train 1 -", "b A320 train 1 -"], "has no photo of test, and 2 of train; add some, or take the split"),
        (["a A320 test 1 -"], "has no photo of train, and 1 of test"),
        (
            ["a A320 train 1 -", "b A320 test 2 -", "c B747 test 3 -", "d B747 validation 4 -"],
            "train has no photo of B747 (2 in test, validation, such as row 4), so that no model can learn 1 types; "
            "give them training photos, take them out of the other splits, or name the others in data.only_types",
        ),
    ],
)
def test_a_split_that_cannot_be_learned_is_refused(rows: list[str], message: str) -> None:
    table = _index(*rows).rename(columns={GIVEN: "split"})
    places = pd.Series([f"row {number}" for number in range(2, 2 + len(table))])
    with pytest.raises(ValueError, match=re.escape(message)):
        check_given_split(table, places)


_PHOTOS = 160


def _noise(number: int, side_px: int = 32) -> Image.Image:
    """A picture unlike every other."""
    coarse = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side_px, side_px), Image.Resampling.NEAREST)


def plant_leaks(folder: Path, photos: int, leaks: int) -> tuple[Path, set[frozenset[str]]]:
    """Write photos of two types and a table with a split, and copies of training photos in test and validation.

    Every other leak is another picture of an airframe instead of a copy. Returns the table and the leaking pairs.
    """
    folder.mkdir()
    splits = ("train", "train", "train", "Validation ", " TEST")
    rows = [[f"{n}.png", f"T{n % 2}", splits[n % len(splits)], f"R{n}"] for n in range(photos - leaks)]
    pairs = set()
    for number in range(photos - leaks):
        _noise(number).save(folder / f"{number}.png")
    for leak in range(leaks):
        number, original, copied = photos - leaks + leak, 5 * leak, leak % 2 == 0
        (_noise(original, 64) if copied else _noise(number)).save(folder / f"{number}.png")
        registration = f"R{number if copied else original}"
        rows.append([f"{number}.png", rows[original][1], ("val", "test")[leak % 3 == 0], registration])
        pairs.add(frozenset((f"{original}.png", f"{number}.png")))
    table = folder / "labels.csv"
    pd.DataFrame(rows, columns=["filename", "typename", "split", "registration"]).to_csv(table, index=False)
    return table, pairs


def prepare(table: Path, out: Path, leaks: Leaks) -> tuple[pd.DataFrame, DataSummary]:
    """The index and the summary of a folder with its table, prepared at 32 px."""
    params = load_section(DataParams, "data").model_copy(
        update={"source": "table", "root": str(table.parent), "labels": str(table)}
    )
    source = create_source(params, 32, out.with_name("work"))
    index = prepare_photos(source, params.split, 32, out, leaks=leaks)
    return index, summarise(index, source, out)


def test_planted_leaks_are_all_named_moved_or_refused(tmp_path: Path) -> None:
    table, pairs = plant_leaks(tmp_path / "photos", _PHOTOS, leaks=12)
    index, summary = prepare(table, tmp_path / "out", "report")
    found = [frozenset(group.filenames) for group in (*summary.divided_duplicates, *summary.divided_airframes)]
    assert len(found) == 12
    assert set(found) == pairs
    assert index["split"].tolist() == index[GIVEN].tolist()
    assert not summary.moved
    index, summary = prepare(table, tmp_path / "out", "move")
    assert {name for name, _, _ in summary.moved} == {f"{number}.png" for number in range(_PHOTOS - 12, _PHOTOS)}
    assert {(given, split) for _, given, split in summary.moved} == {("test", "train"), ("validation", "train")}
    assert index["split"].groupby(index["group"]).nunique().eq(1).all()
    assert pd.read_parquet(tmp_path / "out" / "table.parquet")[GIVEN].tolist() == index[GIVEN].tolist()
    with pytest.raises(ValueError, match=r"6 pictures and 6 airframes .*(?s:.*)and 2 more"):
        prepare(table, tmp_path / "out", "refuse")
