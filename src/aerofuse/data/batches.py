"""Which photos make up which batch: a function of seed, epoch and process alone.

So a training that was stopped goes on with the very photo that would have come next, whatever had been loaded ahead,
and several processes share a batch out without seeing any photo twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Sampler


class Draw(NamedTuple):
    """One photo to load. `epoch` decides how it is augmented; a `filler` has no labels, so that it teaches nothing."""

    photo: int
    epoch: int
    is_filler: bool = False


class EpochBatches(Sampler[list[Draw]]):
    """The batches of an epoch, or one process's part of each: an order for every epoch, shuffled.

    The last batch may be smaller. Parts of a batch are equally long; where its photos do not suffice, the first one
    fills up as a `filler`. `go_to` says where the next iteration starts.
    """

    def __init__(self, num_samples: int, batch_size: int, seed: int, *, rank: int = 0, num_processes: int = 1) -> None:
        self._num_samples = num_samples
        self._batch_size = batch_size
        self._seed = seed
        self._rank = rank
        self._num_processes = num_processes
        self._epoch = 1
        self._first = 0

    def go_to(self, epoch: int, batch: int = 0) -> None:
        """The next iteration is of that epoch, without the batches before `batch`."""
        self._epoch, self._first = epoch, batch

    def __len__(self) -> int:
        """The batches of a whole epoch."""
        return math.ceil(self._num_samples / self._batch_size)

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch, first = self._epoch, self._first
        generator = torch.Generator().manual_seed(derive_seed(self._seed, epoch))
        order = torch.randperm(self._num_samples, generator=generator).tolist()
        for number in range(first, len(self)):
            batch = order[number * self._batch_size : (number + 1) * self._batch_size]
            mine = [Draw(photo, epoch) for photo in batch[self._rank :: self._num_processes]]
            missing = math.ceil(len(batch) / self._num_processes) - len(mine)
            yield mine + [Draw(batch[0], epoch, is_filler=True)] * missing


def derive_seed(*numbers: int) -> int:
    """A seed that follows from others and that neighbours do not share, below 2**32."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
