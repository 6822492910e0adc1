from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from aerofuse.data.dataset import Draw, Image, PreparedSplit, TrainingLoader
from aerofuse.data.labels import ClassLists
from aerofuse.data.photo import Photo
from aerofuse.data.store import open_table, write_photos
from aerofuse.data.transforms import AugmentationParams, make_augmentation

CLASSES = ClassLists(("A320", "运-20"), ("Ærø",))


def _photos(number: int = 5) -> Iterator[Photo]:
    rng = np.random.default_rng(0)
    for index in range(number):
        coarse = rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)
        image = np.asarray(cv2.resize(coarse, (48, 48), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)
        known = index % 2 == 0
        yield Photo(
            image,
            f"{index}.jpg",
            "运-20" if known else "A320",
            "Ærø" if known else None,
            index / 10 if known else None,
            None if known else 0.5,
            f"R{index}" if known else None,
        )


def test_photos_and_labels_come_back(tmp_path: Path) -> None:
    write_photos(tmp_path / "some.arrow", _photos())
    split = PreparedSplit(tmp_path / "some.arrow", CLASSES)
    for index, photo in enumerate(_photos()):
        difference = np.abs(split.image(index).astype(int) - photo.image.astype(int))
        assert difference.mean() < 2
        row = split.labels.iloc[index]
        assert (row["filename"], row["typename"]) == (photo.filename, photo.typename)
    assert split.labels["airlinename"].isna().tolist() == [False, True, False, True, False]


def test_missing_labels_stay_missing(tmp_path: Path) -> None:
    write_photos(tmp_path / "some.arrow", _photos())
    split = PreparedSplit(tmp_path / "some.arrow", CLASSES)
    known, unknown = split[2][1], split[1][1]
    assert (int(known["type"]), int(known["airline"])) == (1, 0)
    assert float(known["clarity"]) == pytest.approx(0.2)
    assert known["block"].isnan()
    assert int(unknown["airline"]) == -1
    assert unknown["clarity"].isnan()


def test_the_same_photos_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_photos(tmp_path / name, _photos(300))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_missing_file_says_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="dvc repro prepare"):
        open_table(tmp_path / "none.arrow")


def test_a_pickled_split_maps_the_file_instead_of_carrying_it(tmp_path: Path) -> None:
    write_photos(tmp_path / "some.arrow", _photos(300))
    split = PreparedSplit(tmp_path / "some.arrow", CLASSES)
    pickled = pickle.dumps(split)
    assert torch.equal(pickle.loads(pickled)[3][0], split[3][0])
    assert b"ARROW1" not in pickled


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_loaded_is_a_function_of_seed_and_epoch(tmp_path: Path, workers: int) -> None:
    write_photos(tmp_path / "some.arrow", _photos(40))
    augment = make_augmentation(AugmentationParams(horizontal_flip=True, color_jitter=0.1), seed=0)
    split = PreparedSplit(tmp_path / "some.arrow", CLASSES, augment)

    def loaded(seed: int, epoch: int, first: int = 0) -> list[bytes]:
        loader = TrainingLoader(split, batch_size=8, num_workers=workers, seed=seed)
        return [images.numpy().tobytes() for images, _ in loader.epoch(epoch, first)]

    assert len(loaded(0, 1)) == 5
    assert loaded(0, 1) == loaded(0, 1)
    assert loaded(0, 1)[3:] == loaded(0, 1, first=3)
    assert not set(loaded(0, 1)) & set(loaded(1, 1))
    assert not set(loaded(0, 1)) & set(loaded(0, 2))


def test_a_photo_is_augmented_anew_in_every_epoch(tmp_path: Path) -> None:
    write_photos(tmp_path / "some.arrow", _photos(1))
    augment = make_augmentation(AugmentationParams(horizontal_flip=True, color_jitter=0.1), seed=0)
    split = PreparedSplit(tmp_path / "some.arrow", CLASSES, augment)
    assert len({split[Draw(0, epoch)][0].numpy().tobytes() for epoch in range(8)}) > 4


class _DyingSplit(PreparedSplit):
    def image(self, index: int) -> Image:
        if index == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().image(index)


def test_a_worker_that_dies_names_the_photo_it_read(tmp_path: Path) -> None:
    write_photos(tmp_path / "some.arrow", _photos(40))
    loader = TrainingLoader(_DyingSplit(tmp_path / "some.arrow", CLASSES), batch_size=8, num_workers=2, seed=0)
    with pytest.raises(ChildProcessError, match=r"while it was reading 7\.jpg"):
        list(loader.epoch(1))


def test_a_photo_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    class Damaged(PreparedSplit):
        def image(self, index: int) -> Image:
            raise ValueError(f"no image {index}")

    write_photos(tmp_path / "some.arrow", _photos(3))
    loader = TrainingLoader(Damaged(tmp_path / "some.arrow", CLASSES), batch_size=1, num_workers=0, seed=0)
    with pytest.raises(RuntimeError, match=r"some\.arrow: photo \d\.jpg cannot be read: ValueError\('no image"):
        list(loader.epoch(1))


def test_augmentation_only_mirrors_and_recolours(tmp_path: Path) -> None:
    """What the labels say stays true: mirrored back, edges are where they were and as sharp as they were."""
    write_photos(tmp_path / "some.arrow", _photos())
    image = PreparedSplit(tmp_path / "some.arrow", CLASSES).image(0)
    flip = make_augmentation(AugmentationParams(horizontal_flip=True, color_jitter=0.0), seed=0)
    seen = {flip(image, (number,)).tobytes() for number in range(20)}
    assert seen == {image.tobytes(), image[:, ::-1].tobytes()}
    colour = make_augmentation(AugmentationParams(horizontal_flip=False, color_jitter=0.1), seed=0)
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(float).ravel()
    changed = [colour(image, (number,)) for number in range(20)]
    assert len({other.tobytes() for other in changed}) > 10
    for other in changed:
        other_gray = cv2.cvtColor(other, cv2.COLOR_RGB2GRAY).astype(float).ravel()
        assert np.corrcoef(gray, other_gray)[0, 1] > 0.98


def test_augmentation_is_a_function_of_its_seed(tmp_path: Path) -> None:
    write_photos(tmp_path / "some.arrow", _photos())
    image = PreparedSplit(tmp_path / "some.arrow", CLASSES).image(0)
    params = AugmentationParams(horizontal_flip=True, color_jitter=0.1)

    def run(seed: int) -> list[bytes]:
        augment = make_augmentation(params, seed)
        return [augment(image, (number,)).tobytes() for number in range(5)]

    assert run(0) == run(0)
    assert run(0) != run(1)
