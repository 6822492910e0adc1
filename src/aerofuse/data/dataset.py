"""A prepared split as a torch dataset, and the loader over it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from aerofuse.data.labels import TASKS, ClassLists, make_targets
from aerofuse.data.store import LABEL_COLUMNS, decode_image, open_table

Image = npt.NDArray[np.uint8]
Sample = tuple[Tensor, dict[str, Tensor]]


class PreparedSplit(Dataset[Sample]):
    """Photos of one split: `(image, targets)`, the image uint8 `[3, H, W]`, the targets as `make_targets` says.

    Models normalise by themselves, so that training, evaluation and prediction cannot differ in it.
    """

    def __init__(self, path: Path, classes: ClassLists, augment: Callable[[Image], Image] | None = None) -> None:
        self._path = path
        self._table = open_table(path)
        self._augment = augment
        rows = self._table.select(list(LABEL_COLUMNS)).to_pylist()
        self.labels = pd.DataFrame(rows, columns=list(LABEL_COLUMNS))
        self._targets = [make_targets(row, classes) for row in rows]

    def __len__(self) -> int:
        return len(self._targets)

    @property
    def labelled_tasks(self) -> tuple[str, ...]:
        """The tasks that at least one photo has a label of."""
        columns = {"type": "typename", "airline": "airlinename"}
        return tuple(task for task in TASKS if self.labels[columns.get(task, task)].notna().any())

    def image(self, index: int) -> Image:
        """One photo as it is stored: RGB `[H, W, 3]`."""
        return decode_image(self._table["image"][index].as_buffer())

    def __getitem__(self, index: int) -> Sample:
        image = self.image(index)
        if self._augment is not None:
            image = self._augment(image)
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))), self._targets[index]

    def __getstate__(self) -> dict[str, Any]:
        # A worker maps the file again instead of receiving a copy of it.
        return {name: value for name, value in self.__dict__.items() if name != "_table"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._table = open_table(self._path)


def make_loader(
    split: PreparedSplit, *, batch_size: int, shuffle: bool, num_workers: int, seed: int
) -> DataLoader[Sample]:
    """Batches of a split; the order of a shuffled one is a function of `seed` and the epoch alone."""
    return DataLoader(
        split,
        batch_size=batch_size,
        shuffle=shuffle,
        drop_last=False,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(seed),
    )
