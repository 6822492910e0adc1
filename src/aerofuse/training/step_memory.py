"""What memory a training step of a model will take, for any batch size, before anything of that size is run."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import chain
from typing import TypeVar

import torch
from accelerate.utils.memory import clear_device_cache

from aerofuse.checkpointing.choosing import without_checkpointing
from aerofuse.checkpointing.plan import StepPrediction
from aerofuse.common.hardware import memory_of
from aerofuse.memory.counter import LiveBytes
from aerofuse.memory.fake import FakeCopy
from aerofuse.memory.report import MemoryReport
from aerofuse.memory.step import Precision, count_training_step
from aerofuse.models.aircraft_model import AircraftModel
from aerofuse.planning.estimates import Stopwatch
from aerofuse.planning.planner import Planner
from aerofuse.training.params import TrainingParams

Result = TypeVar("Result")

_MOMENTS_OF_ADAMW = 2


class StepMemory:
    """The training step of one model, with AdamW. All bytes are peaks of everything.

    Its inputs are uint8 images `[B, 3, H, W]`, or float32 `[B, 1, num_features]` where a number is given.

    The model is on the device that it will be trained on. Where gradients are accumulated, all of them are there
    when all but the first batch of an update begin; what is predicted then is an upper bound.
    """

    def __init__(
        self,
        model: AircraftModel,
        image_size_px: int,
        params: TrainingParams,
        accumulation_steps: int,
        num_features: int | None = None,
    ) -> None:
        self.model = model
        self._sample_shape = (3, image_size_px, image_size_px) if num_features is None else (1, num_features)
        self._input_dtype = torch.uint8 if num_features is None else torch.float32
        # fp16 has the bytes of bf16; the scaling of its loss adds a few numbers.
        self.precision: Precision = "float32" if params.mixed_precision == "no" else "bf16"
        self._reserve = params.memory_reserve
        self._offload = params.gradient_checkpointing.offload
        self._averages = params.weight_averaging > 0
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.device = learning[0].device
        self.gradient_bytes = sum(parameter.nbytes for parameter in learning)
        self.model_bytes = sum(tensor.nbytes for tensor in chain(model.parameters(), model.buffers()))
        # What one update's first batches leave for its later ones.
        self.waiting_bytes = self.gradient_bytes if accumulation_steps > 1 else 0

    @property
    def can_checkpoint(self) -> bool:
        """Return whether a backbone learns; where none does, there is little to compute again."""
        backbones = self.model.backbones().values()
        return any(parameter.requires_grad for backbone in backbones for parameter in backbone.parameters())

    @property
    def checkpoints(self) -> bool:
        """Return whether a backbone that learns saves less than everything."""
        return self.can_checkpoint and self.model.is_gradient_checkpointing_enabled()

    @property
    def fixed_bytes(self) -> int:
        """Return the model and the optimiser's state: there all the time, whatever the batch."""
        return self.model_bytes + _MOMENTS_OF_ADAMW * self.gradient_bytes

    def available_bytes(self) -> int:
        """Return what a step may take: what the device has free, and the model in it, less reserve and average."""
        memory = memory_of(self.device)
        average_bytes = self.model_bytes if self._averages else 0
        reserve_bytes = round(self._reserve * memory.total_bytes)
        return max(0, memory.free_bytes + self.model_bytes - average_bytes - reserve_bytes)

    def count(self, batch_size: int) -> int:
        """Return the peak of a step under the model's present policy."""
        report = self._count(batch_size, fake=True)
        return self._peak(batch_size, report.peak_bytes, report.peak_activation_bytes)

    def count_baseline(self, batch_size: int) -> int:
        """Return the peak of a step without checkpointing."""
        with without_checkpointing(self.model):
            return self.count(batch_size)

    def count_evaluation(self, batch_size: int) -> int:
        """Return the peak of a pass without gradients, while the optimiser's state waits."""
        with FakeCopy(self.model).active() as fake, torch.no_grad():
            images = torch.zeros(self.input_shape(batch_size), dtype=self._input_dtype, device=self.device)
            autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")
            with LiveBytes(fake.eval(), None, [images]) as live, autocast:
                fake(images)
        return live.report().peak_bytes + _MOMENTS_OF_ADAMW * self.gradient_bytes

    def planner(self, batch_size: int, stopwatch: Stopwatch | None = None) -> Planner:
        """Return all plans for one batch size. They know nothing of `waiting_bytes`."""
        shape = self.input_shape(batch_size)
        return Planner(
            self.model,
            shape,
            optimizer="adamw",
            precision=self.precision,
            input_dtype=self._input_dtype,
            stopwatch=stopwatch,
            offload=self._offload,
        )

    def planned(self, batch_size: int, prediction: StepPrediction) -> int:
        """Return the peak of a step that a planner predicts."""
        return self._peak(batch_size, prediction.peak_bytes, prediction.activation_bytes)

    def run(self, batch_size: int) -> MemoryReport:
        """Return a real step on the model's device, after which the model and the random state are as before."""
        return self._count(batch_size, fake=False)

    def _count(self, batch_size: int, *, fake: bool) -> MemoryReport:
        shape = self.input_shape(batch_size)
        return count_training_step(
            self.model, shape, precision=self.precision, input_dtype=self._input_dtype, fake=fake
        )

    def _peak(self, batch_size: int, peak_bytes: int, activation_bytes: int) -> int:
        if not self.waiting_bytes:
            return peak_bytes
        input_bytes = math.prod(self.input_shape(batch_size)) * self._input_dtype.itemsize
        return max(peak_bytes, self.fixed_bytes + input_bytes + self.waiting_bytes + activation_bytes)

    def input_shape(self, batch_size: int) -> tuple[int, ...]:
        """Return that of a batch."""
        return batch_size, *self._sample_shape


def unless_out_of_memory(call: Callable[[], Result]) -> Result | None:
    """Return what `call` does, or `None` where the device's memory ran out. What it leaves unused is given back."""
    result = None
    try:
        result = call()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Not while the error is handled, for its frames hold the tensors that were too many.
    clear_device_cache(garbage_collection=True)
    return result


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a device's memory ran out."""
    # A GPU's allocator says it by the type; the CPU's, which differs between systems, and GPU libraries by words.
    # accelerate's `should_reduce_batch_size` misses a MemoryError, `not enough memory` (the CPU's allocator elsewhere
    # than on Linux) and ALLOC_FAILED, and it takes an operation that cuDNN does not support for a lack of memory.
    words = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in str(error) for word in words)
