from __future__ import annotations

import dataclasses
import os
import pickle
import signal
from pathlib import Path

import pytest
import torch

from aerofuse.data.dataset import Draw, EpochBatches, Image, PreparedSplit, TrainingLoader, derive_seed, spread
from aerofuse.data.store import write_photos
from aerofuse.data.transforms import AugmentationParams, make_augmentation
from tests.data.made_up_photos import CLASSES, made_up_photos


def test_missing_labels_stay_missing(tmp_path: Path) -> None:
    write_photos(tmp_path / "some.arrow", made_up_photos())
    split = PreparedSplit(tmp_path / "some.arrow", CLASSES)
    known, unknown = split[2][1], split[1][1]
    assert (int(known["type"]), int(known["airline"])) == (1, 0)
    assert float(known["clarity"]) == pytest.approx(0.2)
    assert known["block"].isnan()
    assert int(unknown["airline"]) == -1
    assert unknown["clarity"].isnan()


def test_a_pickled_split_maps_the_file_instead_of_carrying_it(tmp_path: Path) -> None:
    write_photos(tmp_path / "some.arrow", made_up_photos(300))
    split = PreparedSplit(tmp_path / "some.arrow", CLASSES)
    pickled = pickle.dumps(split)
    assert torch.equal(pickle.loads(pickled)[3][0], split[3][0])
    assert b"ARROW1" not in pickled


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_loaded_is_a_function_of_seed_and_epoch(tmp_path: Path, workers: int) -> None:
    write_photos(tmp_path / "some.arrow", made_up_photos(40))
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
    write_photos(tmp_path / "some.arrow", made_up_photos(1))
    augment = make_augmentation(AugmentationParams(horizontal_flip=True, color_jitter=0.1), seed=0)
    split = PreparedSplit(tmp_path / "some.arrow", CLASSES, augment)
    assert len({split[Draw(0, epoch)][0].numpy().tobytes() for epoch in range(8)}) > 4


class _DyingSplit(PreparedSplit):
    def image(self, index: int) -> Image:
        if index == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().image(index)


def test_a_worker_that_dies_names_the_photo_it_read(tmp_path: Path) -> None:
    write_photos(tmp_path / "some.arrow", made_up_photos(40))
    loader = TrainingLoader(_DyingSplit(tmp_path / "some.arrow", CLASSES), batch_size=8, num_workers=2, seed=0)
    with pytest.raises(ChildProcessError, match=r"while it was reading 7\.jpg"):
        list(loader.epoch(1))


def test_a_photo_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    class Damaged(PreparedSplit):
        def image(self, index: int) -> Image:
            raise ValueError(f"no image {index}")

    write_photos(tmp_path / "some.arrow", made_up_photos(3))
    loader = TrainingLoader(Damaged(tmp_path / "some.arrow", CLASSES), batch_size=1, num_workers=0, seed=0)
    with pytest.raises(RuntimeError, match=r"some\.arrow: photo \d\.jpg cannot be read: ValueError\('no image"):
        list(loader.epoch(1))


def _indices(batches: list[list[Draw]]) -> list[int]:
    return [draw.photo for batch in batches for draw in batch if not draw.is_filler]


def test_an_epoch_shows_every_photo_once_and_the_next_one_in_another_order() -> None:
    batches = EpochBatches(103, 10, seed=0)
    first = list(batches)
    batches.go_to(2)
    second = list(batches)
    assert len(first) == len(second) == len(batches) == 11
    assert sorted(_indices(first)) == sorted(_indices(second)) == list(range(103))
    assert _indices(first) != _indices(second)
    assert {draw.epoch for batch in second for draw in batch} == {2}


def test_it_starts_at_any_batch() -> None:
    batches = EpochBatches(103, 10, seed=5)
    whole = list(batches)
    batches.go_to(1, 7)
    assert list(batches) == whole[7:]


@pytest.mark.parametrize("num_processes", [2, 3, 4])
def test_processes_share_each_batch_out(num_processes: int) -> None:
    whole = list(EpochBatches(103, 10, seed=0))
    parts = [
        list(EpochBatches(103, 10, seed=0, rank=rank, num_processes=num_processes)) for rank in range(num_processes)
    ]
    for number, batch in enumerate(whole):
        own = [part[number] for part in parts]
        assert len({len(one) for one in own}) == 1  # all run as many samples
        assert sorted(_indices(own)) == sorted(_indices([batch]))


def test_seeds_of_neighbours_differ() -> None:
    assert (
        len({derive_seed(seed, epoch, index) for seed in range(3) for epoch in range(10) for index in range(100)})
        == 3000
    )


def test_rare_types_are_drawn_as_often_as_others(tmp_path: Path) -> None:
    photos = [
        dataclasses.replace(photo, typename="A320" if number % 8 else "运-20")
        for number, photo in enumerate(made_up_photos(160))
    ]
    write_photos(tmp_path / "some.arrow", photos)
    split = PreparedSplit(tmp_path / "some.arrow", CLASSES)
    torch.testing.assert_close(split.class_weights()["type"], torch.tensor([160 / 280, 160 / 40]))
    loader = TrainingLoader(split, batch_size=16, num_workers=0, seed=0, balanced=True)
    drawn = torch.cat([targets["type"] for _, targets in loader.epoch(1)])
    assert len(drawn) == 160
    assert 55 < int((drawn == 1).sum()) < 105


def test_samples_are_spread_over_a_split() -> None:
    assert spread(5, 9) == [0, 1, 2, 3, 4]
    assert spread(101, 3) == [0, 50, 100]
    assert len(set(spread(2098, 256))) == 256
