"""A batch that does not fit is run in parts: the same update, with more steps to it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

from aerofuse.models.aircraft_model import AircraftModel
from aerofuse.training.params import OnOutOfMemory

logger = logging.getLogger(__name__)

Batch = tuple[Tensor, dict[str, Tensor]]


class MicroBatches:
    """How much of a batch runs at once, found once for all batches.

    `make_room` is called when the device's memory ran out: it halves the parts, down to single samples, then raises
    gradient checkpointing where `on_out_of_memory` allows that, and begins again with the whole batch. `advice` says
    what would fit.
    """

    def __init__(
        self, model: AircraftModel, on_out_of_memory: OnOutOfMemory, advice: Callable[[], str] = lambda: ""
    ) -> None:
        self._model = model
        self._on_out_of_memory = on_out_of_memory
        self._advice = advice
        self._raised = False
        self.size: int | None = None  # samples of a part; `None` is the whole batch
        # Updates until it is known that the parts fit: in the second one the optimiser has its state.
        self.trials = 2

    def parts(self, batch: Batch) -> Iterator[Batch]:
        """Yield the parts of a batch, equal but for the last."""
        images, targets = batch
        size = self.size or len(images)
        for start in range(0, len(images), size):
            yield images[start : start + size], {task: values[start : start + size] for task, values in targets.items()}

    def make_room(self, batch_size: int, reason: str) -> None:
        """Smaller parts of batches of that size, or checkpointing; `MemoryError` where nothing is left to try."""
        size = min(self.size or batch_size, batch_size)
        if self._on_out_of_memory != "fail" and size > 1:
            self.size = math.ceil(size / 2)
            logger.warning(
                "out of memory with %d images at once; batches of %d run in parts of %d from now on, with the same "
                "sums of gradients (BatchNorm sees the parts)",
                size,
                batch_size,
                self.size,
            )
        elif self._on_out_of_memory == "split_and_checkpoint" and not self._raised and self._model.backbones():
            self._raise_checkpointing()
            logger.warning(
                "out of memory with a single image; from now on every unit of the backbones is computed again"
            )
        else:
            images = f"{size} image{'s' if size > 1 else ''}"
            raise MemoryError(f"no room for {images} at once ({reason.splitlines()[0]}); {self._advice()}")

    def state(self) -> dict[str, Any]:
        """Return what was found, for `restore`."""
        return {"size": self.size, "raised": self._raised, "trials": self.trials}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on with what was found before."""
        if state["raised"]:
            self._raise_checkpointing()
        self.size, self.trials = state["size"], state["trials"]

    def _raise_checkpointing(self) -> None:
        self._model.enable_gradient_checkpointing()
        self._raised = True
        self.size = None
