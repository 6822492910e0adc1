from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aerofuse.data.dataset import PreparedSplit
from aerofuse.data.store import open_table, write_photos
from tests.data.made_up_photos import CLASSES, made_up_photos


def test_photos_and_labels_come_back(tmp_path: Path) -> None:
    write_photos(tmp_path / "some.arrow", made_up_photos())
    split = PreparedSplit(tmp_path / "some.arrow", CLASSES)
    for index, photo in enumerate(made_up_photos()):
        difference = np.abs(split.image(index).astype(int) - photo.image.astype(int))
        assert difference.mean() < 2
        row = split.labels.iloc[index]
        assert (row["filename"], row["typename"]) == (photo.filename, photo.typename)
    assert split.labels["airlinename"].isna().tolist() == [False, True, False, True, False]
    assert split.fit == "letterbox"


def test_how_photos_became_square_comes_back(tmp_path: Path) -> None:
    write_photos(tmp_path / "some.arrow", made_up_photos(), "stretch")
    assert PreparedSplit(tmp_path / "some.arrow", CLASSES).fit == "stretch"


def test_the_same_photos_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_photos(tmp_path / name, made_up_photos(300))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_missing_file_says_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="dvc repro prepare"):
        open_table(tmp_path / "none.arrow")
