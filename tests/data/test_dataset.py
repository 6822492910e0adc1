"""Which photos make up which batch."""

from __future__ import annotations

import pytest

from aerofuse.data.dataset import Draw, EpochBatches, derive_seed


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
