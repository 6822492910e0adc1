from __future__ import annotations

from pathlib import Path

from aerofuse.data.dataset import PreparedSplit
from aerofuse.data.labels import ClassLists
from aerofuse.data.prepare import prepare_photos
from aerofuse.data.sources.synthetic_source import SyntheticSource
from aerofuse.data.splits import SPLITS
from aerofuse.params.data import SplitParams
from aerofuse.params.synthetic import SyntheticParams


def test_every_photo_is_in_one_split_with_its_own_labels(prepared_folder: Path, classes: ClassLists) -> None:
    index = SyntheticSource(SyntheticParams(num_images=160, num_airframes=60), seed=0).index()
    rows = {name: PreparedSplit(prepared_folder / f"{name}.arrow", classes).labels for name in SPLITS}
    written = {label["filename"]: label for labels in rows.values() for label in labels.to_dict("records")}
    assert sum(len(labels) for labels in rows.values()) == len(written) == len(index)
    for row in index.to_dict("records"):
        for column in ("typename", "airlinename", "registration"):
            assert written[row["filename"]][column] == row[column]


def test_no_airframe_is_on_two_sides(prepared_folder: Path, classes: ClassLists) -> None:
    seen = [set(PreparedSplit(prepared_folder / f"{name}.arrow", classes).labels["registration"]) for name in SPLITS]
    assert sum(len(registrations) for registrations in seen) == len(set.union(*seen))


def test_class_lists_name_what_there_is(prepared_folder: Path, classes: ClassLists) -> None:
    train = PreparedSplit(prepared_folder / "train.arrow", classes).labels
    assert set(train["typename"]) == set(classes.types)
    assert set(train["airlinename"]) <= set(classes.airlines)
    assert list(classes.types) == sorted(classes.types)


def test_twice_the_same_preparation_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        source = SyntheticSource(SyntheticParams(num_images=64, num_airframes=120), seed=0)
        prepare_photos(source, SplitParams(train=0.4, validation=0.3, test=0.3, seed=0), 64, tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert (tmp_path / "two" / path.name).read_bytes() == path.read_bytes()
