"""What a training step of a model will hold, for any batch size, before anything of that size is run."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import TypeVar

import torch

from aerofuse.backbones.backbone import Backbone
from aerofuse.checkpointing.policy import Prediction, plannable_parts
from aerofuse.common.hardware import memory_of
from aerofuse.memory.counter import LiveBytes
from aerofuse.memory.fake import FakeCopy
from aerofuse.memory.report import MemoryReport
from aerofuse.memory.step import Precision, count_training_step
from aerofuse.models.aircraft_model import AircraftModel
from aerofuse.planning.clocks import Stopwatch
from aerofuse.planning.planner import Planner
from aerofuse.training.params import TrainingParams

Result = TypeVar("Result")

_INPUT_DTYPE = torch.uint8
_MOMENTS_OF_ADAMW = 2


class StepMemory:
    """The training step of one model, with AdamW, on uint8 images `[B, 3, H, W]`. All bytes are peaks of everything.

    The model is on the device that it will be trained on. Where gradients are accumulated, all of them are there
    when all but the first batch of an update begin; what is said to be held then is an upper bound.
    """

    def __init__(
        self, model: AircraftModel, image_size_px: int, params: TrainingParams, accumulation_steps: int
    ) -> None:
        self.model = model
        self._image_size_px = image_size_px
        # fp16 has the bytes of bf16; the scaling of its loss adds a few numbers.
        self._precision: Precision = "float32" if params.mixed_precision == "no" else "bf16"
        self._reserve = params.memory_reserve
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.device = learning[0].device
        self.gradient_bytes = sum(parameter.nbytes for parameter in learning)
        self.model_bytes = sum(tensor.nbytes for tensor in chain(model.parameters(), model.buffers()))
        # What one update's first batches leave for its later ones.
        self.waiting_bytes = self.gradient_bytes if accumulation_steps > 1 else 0

    @property
    def can_checkpoint(self) -> bool:
        """Whether a backbone learns; where none does, there is nothing to compute again."""
        return bool(plannable_parts(self.model))

    @property
    def checkpoints(self) -> bool:
        """Whether a backbone that learns is told to keep less than everything."""
        return any(part.treatment is not None for part in plannable_parts(self.model).values())

    @property
    def fixed_bytes(self) -> int:
        """The model and the optimiser's state: there all the time, whatever the batch."""
        return self.model_bytes + _MOMENTS_OF_ADAMW * self.gradient_bytes

    def available_bytes(self) -> int:
        """What a step may hold: what the device has free, and the model in it, less the reserve."""
        memory = memory_of(self.device)
        return max(0, memory.free_bytes + self.model_bytes - round(self._reserve * memory.total_bytes))

    def count(self, batch_size: int) -> int:
        """The peak of a step that keeps what the model is told to keep now."""
        report = self._count(batch_size, fake=True)
        return self._peak(batch_size, report.peak_bytes, report.peak_activation_bytes)

    def count_unchecked(self, batch_size: int) -> int:
        """The peak of a step without checkpointing."""
        with _without_checkpointing(self.model):
            return self.count(batch_size)

    def count_evaluation(self, batch_size: int) -> int:
        """The peak of a pass without gradients, while the optimiser's state waits."""
        with FakeCopy(self.model, mixed_precision=self._precision != "float32").active() as fake, torch.no_grad():
            images = torch.zeros(self._shape(batch_size), dtype=_INPUT_DTYPE, device=self.device)
            autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self._precision == "bf16")
            with LiveBytes(fake.eval(), None, [images]) as live, autocast:
                fake(images)
        return live.report().peak_bytes + _MOMENTS_OF_ADAMW * self.gradient_bytes

    def planner(self, batch_size: int, stopwatch: Stopwatch | None = None) -> Planner:
        """All plans for one batch size. They know nothing of `waiting_bytes`."""
        return Planner(
            self.model,
            self._shape(batch_size),
            optimizer="adamw",
            precision=self._precision,
            input_dtype=_INPUT_DTYPE,
            stopwatch=stopwatch,
        )

    def planned(self, batch_size: int, prediction: Prediction) -> int:
        """The peak of a step that a planner predicts."""
        return self._peak(batch_size, prediction.peak_bytes, prediction.activation_bytes)

    def run(self, batch_size: int) -> MemoryReport:
        """A real step on the model's device, after which the model and the random state are as before."""
        return self._count(batch_size, fake=False)

    def _count(self, batch_size: int, *, fake: bool) -> MemoryReport:
        return count_training_step(
            self.model,
            self._shape(batch_size),
            optimizer="adamw",
            precision=self._precision,
            input_dtype=_INPUT_DTYPE,
            fake=fake,
        )

    def _peak(self, batch_size: int, peak_bytes: int, activation_bytes: int) -> int:
        if not self.waiting_bytes:
            return peak_bytes
        input_bytes = batch_size * 3 * self._image_size_px**2
        return max(peak_bytes, self.fixed_bytes + input_bytes + self.waiting_bytes + activation_bytes)

    def _shape(self, batch_size: int) -> tuple[int, int, int, int]:
        return batch_size, 3, self._image_size_px, self._image_size_px


def unless_out_of_memory(call: Callable[[], Result], device: torch.device) -> Result | None:
    """What `call` returns, or `None` where the device's memory ran out. What it leaves unused is given back."""
    result = None
    try:
        result = call()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Not while the error is handled, for its frames hold the tensors that were too many.
    free_what_is_unused(device)
    return result


def free_what_is_unused(device: torch.device) -> None:
    """Give back what nothing holds any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device's memory ran out."""
    # A GPU's allocator says it by the type; the CPU's, which differs between systems, and GPU libraries by words.
    words = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in str(error) for word in words)


@contextmanager
def _without_checkpointing(model: AircraftModel) -> Iterator[None]:
    parts: list[AircraftModel | Backbone] = [model, *model.backbones().values()]
    treatments = [part.treatment for part in parts]
    try:
        for part in parts:
            part.treatment = None
        yield
    finally:
        for part, treatment in zip(parts, treatments, strict=True):
            part.treatment = treatment
