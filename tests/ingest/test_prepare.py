from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from PIL import ImageOps

from aerofuse.data.dataset import PreparedSplit
from aerofuse.data.labels import ClassLists
from aerofuse.ingest.file_source import FileSource
from aerofuse.ingest.intake import IntakeSettings
from aerofuse.ingest.params import SPLITS, SplitParams
from aerofuse.ingest.prepare import prepare_photos
from aerofuse.ingest.sources import SyntheticSource
from aerofuse.ingest.splits import OTHER
from aerofuse.ingest.summary import summarise
from aerofuse.ingest.table_source import list_table
from aerofuse.synthetic.params import SyntheticParams
from tests.ingest.photo_folder import PhotoFolder, draw_folder


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


@pytest.fixture
def folder(tmp_path: Path) -> PhotoFolder:
    return draw_folder(tmp_path / "photos", photos=24)


def _source(folder: PhotoFolder, work: Path) -> FileSource:
    listing = list_table(folder.root, folder.labels)
    return FileSource(listing, IntakeSettings(64), work, max_bad_fraction=0.5, duplicate_bits=32)


def _prepare(folder: PhotoFolder, out: Path, *, merge_small_types: bool = False) -> pd.DataFrame:
    split = SplitParams(train=0.5, validation=0.25, test=0.25, seed=0)
    source = _source(folder, out.with_name("work"))
    return prepare_photos(source, split, 64, out, merge_small_types=merge_small_types)


def test_photos_in_files_are_prepared_with_what_is_known_of_them(folder: PhotoFolder, tmp_path: Path) -> None:
    folder.table.loc[2, "airlinename"] = None
    folder.table.loc[4, "clarity"] = None
    folder.table["photographer"] = "Zoë"
    folder.write()
    _prepare(folder, tmp_path / "out")
    classes = ClassLists.load(tmp_path / "out")
    labels = pd.concat([PreparedSplit(tmp_path / "out" / f"{name}.arrow", classes).labels for name in SPLITS])
    expected = folder.table.set_index("filename")
    found = labels.set_index("filename").loc[expected.index]
    assert found["airlinename"].isna().tolist() == expected["airlinename"].isna().tolist()
    assert found["clarity"].isna().tolist() == expected["clarity"].isna().tolist()
    assert found["block"].tolist() == pytest.approx(expected["block"].tolist(), abs=1e-6)
    table = pd.read_parquet(tmp_path / "out" / "table.parquet")
    assert set(table["photographer"]) == {"Zoë"}
    assert dict(zip(table["filename"], table["split"], strict=True)).keys() == set(expected.index)


def test_small_types_become_one_class(folder: PhotoFolder, tmp_path: Path) -> None:
    folder.table["registration"] = [f"R{number}" for number in range(24)]
    folder.table.loc[[0, 1], "typename"] = "Comet"
    folder.table.loc[[2, 3], "typename"] = "Concorde"
    folder.write()
    with pytest.raises(ValueError, match=r"'Comet' \(2\), 'Concorde' \(2\)"):
        _prepare(folder, tmp_path / "refused")
    index = _prepare(folder, tmp_path / "out", merge_small_types=True)
    types = ClassLists.load(tmp_path / "out").types
    assert types[-1] == OTHER
    assert {"Comet", "Concorde"}.isdisjoint(types)
    summary = summarise(index, _source(folder, tmp_path / "work"), tmp_path / "out")
    assert summary.merged_types == {"Comet": 2, "Concorde": 2}


def test_planted_copies_and_airframes_are_on_one_side(folder: PhotoFolder, tmp_path: Path) -> None:
    folder.table["registration"] = [f"R{number // 2}" for number in range(24)]
    copies = {}
    for row in range(0, 24, 3):
        photo = folder.image(row)
        for name, copy in (("small", photo.resize((64, 48))), ("mirrored", ImageOps.mirror(photo))):
            path = folder.add(f"{name}-{row}.jpg", like=row, registration=None)
            copy.save(path, quality=60)
            copies[path.name] = folder.table["filename"][row]
    folder.write()
    index = _prepare(folder, tmp_path / "out").set_index("filename")
    for copy_name, original in copies.items():
        assert index.loc[copy_name, "split"] == index.loc[original, "split"]
    assert index.groupby("registration")["split"].nunique().max() == 1
    assert index["split"].nunique() == 3
    summary = summarise(index.reset_index(), _source(folder, tmp_path / "work"), tmp_path / "out")
    assert summary.near_duplicates == 8
    assert not summary.divided_duplicates
