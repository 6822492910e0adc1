"""Prepared photos as datasets and batches, for training and evaluation.

The photos of a batch depend on seed, epoch and process alone. So a training that was stopped goes on with the photo
that would have come next, and several processes share a batch without seeing any photo twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from aerofuse.data.labels import CLASSIFICATION_TASKS, MISSING_CLASS, REGRESSION_TASKS, TASKS, ClassLists, make_targets
from aerofuse.data.photo import Fit
from aerofuse.data.store import LABEL_COLUMNS, PhotoStore

Image = npt.NDArray[np.uint8]
Sample = tuple[Tensor, dict[str, Tensor]]


class Augmented(NamedTuple):
    """An augmented image, and whether its labels of clarity and block are still true."""

    image: Image
    labels_are_true: bool = True


# From an image and the numbers that decide how it is augmented: see `make_augmentation`.
Augmentation = Callable[[Image, Sequence[int]], Augmented]

_MOST_WORKERS = 256
_NOTHING = -1  # a worker that waits reads no photo


class Draw(NamedTuple):
    """One photo to load. `epoch` decides how it is augmented. A filler has no labels and adds nothing to the loss."""

    photo: int
    epoch: int
    is_filler: bool = False


class PreparedSplit(Dataset[Sample]):
    """Photos of one split: `(image, targets)`, the image uint8 `[3, H, W]`, the targets as `make_targets` says.

    Models normalise by themselves, so that training, evaluation and prediction cannot differ in it. The key of a photo
    is its index, or a `Draw`, whose epoch decides how it is augmented. A photo that cannot be decoded raises
    `RuntimeError` with its name.
    """

    def __init__(self, path: Path, classes: ClassLists, augment: Augmentation | None = None) -> None:
        self.path = path
        self.photos = PhotoStore(path)
        self._augment = augment
        # In memory that worker processes share: a worker that dies can no longer say what it was reading.
        self._reading = torch.full((_MOST_WORKERS,), _NOTHING).share_memory_()
        self.classes = classes
        rows = self.photos.labels.to_pylist()
        self.labels = pd.DataFrame(rows, columns=list(LABEL_COLUMNS))
        self._targets = [make_targets(row, classes) for row in rows]
        self._no_targets = make_targets(dict.fromkeys(LABEL_COLUMNS), classes)

    def __len__(self) -> int:
        return len(self._targets)

    @property
    def fit(self) -> Fit:
        """How the photos became square."""
        return self.photos.fit

    @property
    def labelled_tasks(self) -> tuple[str, ...]:
        """The tasks that at least one photo has a label of."""
        columns = {"type": "typename", "airline": "airlinename"}
        return tuple(task for task in TASKS if self.labels[columns.get(task, task)].notna().any())

    def class_weights(self) -> dict[str, Tensor]:
        """Return for each classification task the weight of each class, float32 `[C]`.

        It is the inverse of how often the class occurs; over the labelled photos the weights are 1 on average.
        """
        weights = {}
        for task, names in zip(CLASSIFICATION_TASKS, (self.classes.types, self.classes.airlines), strict=True):
            labels = torch.stack([targets[task] for targets in self._targets])
            counts = torch.bincount(labels[labels != MISSING_CLASS], minlength=len(names)).float()
            shares = counts.sum() / (counts * (counts > 0).sum())
            weights[task] = torch.where(counts > 0, shares, 0.0)
        return weights

    def draw_weights(self) -> Tensor:
        """Return how often each photo is drawn where all types are to be drawn alike, `[N]`.

        A photo without a type is drawn as often as one on average.
        """
        weights = self.class_weights()["type"]
        types = torch.stack([targets["type"] for targets in self._targets])
        return torch.where(types == MISSING_CLASS, 1.0, weights[types.clamp(min=0)])

    def image(self, index: int) -> Image:
        """Return one image as it is stored: RGB `[H, W, 3]`."""
        return self.photos.image(index)

    def name(self, index: int) -> str:
        """Return the file name of one photo, as in the label table."""
        return str(self.labels["filename"].iat[index])

    def being_read(self) -> list[str]:
        """Return the names of the photos that worker processes are reading, or were reading when they died."""
        return [self.name(index) for index in self._reading.tolist() if index != _NOTHING]

    def __getitem__(self, draw: int | Draw) -> Sample:
        draw = draw if isinstance(draw, Draw) else Draw(draw, epoch=0)
        worker = get_worker_info()
        if worker is not None:
            self._reading[worker.id] = draw.photo
        try:
            image, labels_are_true = Augmented(self.image(draw.photo))
            if self._augment is not None:
                image, labels_are_true = self._augment(image, (draw.epoch, draw.photo))
        except Exception as error:
            raise RuntimeError(f"{self.path}: photo {self.name(draw.photo)} cannot be read: {error!r}") from error
        targets = self._no_targets if draw.is_filler else self._targets[draw.photo]
        if not labels_are_true:
            targets = targets | {task: self._no_targets[task] for task in REGRESSION_TASKS}
        if worker is not None:
            self._reading[worker.id] = _NOTHING
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))), targets


def make_loader(split: PreparedSplit, *, batch_size: int, num_workers: int) -> DataLoader[Sample]:
    """Return batches of a split in its own order, for evaluation."""
    return DataLoader(split, batch_size=batch_size, **_reading_with(num_workers))


def spread(length: int, most: int) -> list[int]:
    """Return the indices of up to `most` of `length` samples, at about even distances."""
    return torch.linspace(0, length - 1, min(length, most), dtype=torch.float64).long().tolist()


class TrainingLoader:
    """The batches of a split for training, in an order that depends on seed and epoch.

    With several processes, each gets its part of every batch.
    """

    def __init__(
        self,
        split: PreparedSplit,
        *,
        batch_size: int,
        num_workers: int,
        seed: int,
        rank: int = 0,
        num_processes: int = 1,
        balanced: bool = False,
        shuffle_shards: int | None = None,
    ) -> None:
        self.batch_size = batch_size
        self.split = split
        weights = split.draw_weights() if balanced else None
        self._batches = EpochBatches(
            len(split),
            batch_size,
            seed,
            rank=rank,
            num_processes=num_processes,
            weights=weights,
            shards=None if shuffle_shards is None else (split.photos.shard_lengths(), shuffle_shards),
        )
        self._loader = DataLoader(split, batch_sampler=self._batches, **_reading_with(num_workers))

    def __len__(self) -> int:
        """The number of batches of an epoch."""
        return len(self._batches)

    def images(self, batch: int) -> int:
        """Return the number of images in one batch, of all processes together."""
        return min(self.batch_size, len(self.split) - batch * self.batch_size)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Sample]:
        """Load the batches of an epoch, which counts from 1, without the `first` of them.

        Raises `ChildProcessError` where a loading process dies, with the names of the photos that were being read.
        """
        self._batches.go_to(epoch, first)
        try:
            yield from self._loader
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker (pid"):
                raise  # an error that names its cause
            names = ", ".join(self.split.being_read()) or "nothing"
            raise ChildProcessError(
                f"a process that loads photos died while it was reading {names}: {error}; where the system killed it "
                "for memory, set training.num_workers lower"
            ) from error

    def names(self, epoch: int, batch: int) -> list[str]:
        """Return the file names of this process's part of one batch."""
        self._batches.go_to(epoch, batch)
        draws = next(iter(self._batches))
        return [self.split.name(draw.photo) for draw in draws if not draw.is_filler]


class EpochBatches(Sampler[list[Draw]]):
    """The batches of an epoch, or one process's part of each, in an order that depends on seed and epoch.

    The last batch may be smaller. All parts of a batch are equally long: fillers complete them. `go_to` says where
    the next iteration starts. With `weights` `[num_samples]` an epoch has as many photos, drawn with replacement. With
    `shards`, the number of photos of each and a number of shards, the shards come in a random order, and photos are
    shuffled within so many shards at a time.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        seed: int,
        *,
        rank: int = 0,
        num_processes: int = 1,
        weights: Tensor | None = None,
        shards: tuple[Sequence[int], int] | None = None,
    ) -> None:
        self._num_samples, self._batch_size, self._seed = num_samples, batch_size, seed
        self._weights, self._shards = weights, shards
        self._rank, self._num_processes = rank, num_processes
        self.go_to(epoch=1)

    def go_to(self, epoch: int, batch: int = 0) -> None:
        """Let the next iteration be of that epoch, without the batches before `batch`."""
        self._epoch, self._first = epoch, batch

    def __len__(self) -> int:
        """The number of batches of a whole epoch."""
        return math.ceil(self._num_samples / self._batch_size)

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch, first = self._epoch, self._first
        order = self._order(torch.Generator().manual_seed(derive_seed(self._seed, epoch)))
        for number in range(first, len(self)):
            batch = order[number * self._batch_size : (number + 1) * self._batch_size]
            mine = [Draw(photo, epoch) for photo in batch[self._rank :: self._num_processes]]
            missing = math.ceil(len(batch) / self._num_processes) - len(mine)
            yield mine + [Draw(batch[0], epoch, is_filler=True)] * missing

    def _order(self, generator: torch.Generator) -> list[int]:
        order: list[int] = []
        for photos in self._mixed(generator):
            if self._weights is None:
                drawn = torch.randperm(len(photos), generator=generator)
            else:
                drawn = torch.multinomial(self._weights[photos], len(photos), replacement=True, generator=generator)
            order += photos[drawn].tolist()
        return order

    def _mixed(self, generator: torch.Generator) -> list[Tensor]:
        """Return the photos that are shuffled among each other, one group after the other."""
        photos = torch.arange(self._num_samples)
        if self._shards is None:
            return [photos]
        lengths, together = self._shards
        shards = photos.split(list(lengths))
        order = [shards[number] for number in torch.randperm(len(shards), generator=generator).tolist()]
        return [torch.cat(order[start : start + together]) for start in range(0, len(order), together)]


def derive_seed(*numbers: int) -> int:
    """Return a seed below 2**32 that follows from other numbers; similar numbers give unlike seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _reading_with(num_workers: int) -> dict[str, Any]:
    return {
        "num_workers": num_workers,
        "persistent_workers": num_workers > 0,
        "pin_memory": torch.cuda.is_available(),
        # A loader draws a seed for its workers, which use none; here it leaves the training's own generator alone.
        "generator": torch.Generator().manual_seed(0),
    }
