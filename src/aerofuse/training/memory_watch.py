"""What training steps really hold, beside what was predicted."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from aerofuse.checkpointing.budget import format_bytes
from aerofuse.memory.counter import LiveBytes
from aerofuse.tracking.tracker import Tracker
from aerofuse.training.fitting import Fit
from aerofuse.training.memory_advice import Outlook, advise
from aerofuse.training.step_memory import StepMemory

logger = logging.getLogger(__name__)

_KNOWN_LATER = ("peak_bytes", "measured")  # than before the training


class MemoryMeter:
    """What the training loop tells of its steps. This one measures nothing.

    `peak_bytes` is the most that steps held so far, `current_bytes` what was left after the last one measured.
    """

    measured = "not measured"

    def __init__(self) -> None:
        self.peak_bytes: int | None = None
        self.current_bytes: int | None = None

    @property
    def allocator_peak_bytes(self) -> int | None:
        """The peak where it is that of a GPU's allocator."""
        return None

    def attach(self, model: nn.Module, optimizer: Optimizer, batches: int, accumulation_steps: int) -> None:
        """Before the first epoch: what is trained, the batches of an epoch, and how many make an update."""

    def epoch(self) -> AbstractContextManager[None]:
        """The context of an epoch's training steps."""
        return nullcontext()

    def step(self, inputs: Tensor) -> AbstractContextManager[None]:  # noqa: ARG002  # this meter does not look
        """The context of one batch, forward, backward and update."""
        return nullcontext()


class AllocatorMeter(MemoryMeter):
    """On CUDA: the allocator's own figures, of every epoch."""

    measured = "by the allocator"

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device

    @property
    def allocator_peak_bytes(self) -> int | None:
        return self.peak_bytes

    @contextmanager
    def epoch(self) -> Iterator[None]:
        torch.cuda.reset_peak_memory_stats(self._device)
        yield
        self.peak_bytes = max(torch.cuda.max_memory_allocated(self._device), self.peak_bytes or 0)
        self.current_bytes = torch.cuda.memory_allocated(self._device)


class CountingMeter(MemoryMeter):
    """Elsewhere: the bytes of the tensors alive in one step, the batch that makes the second update.

    By then the optimiser has its state, and gradients that are accumulated are there. In an epoch of fewer batches
    it is the last one. All other steps run as if there were no meter, and that one gives the same bits.
    """

    measured = "counted in one step"

    def attach(self, model: nn.Module, optimizer: Optimizer, batches: int, accumulation_steps: int) -> None:
        self._model, self._optimizer = model, optimizer
        self._batches_to_go = min(2 * accumulation_steps, batches)

    def step(self, inputs: Tensor) -> AbstractContextManager[None]:
        self._batches_to_go -= 1
        return self._count(inputs) if self._batches_to_go == 0 else nullcontext()

    @contextmanager
    def _count(self, inputs: Tensor) -> Iterator[None]:
        with LiveBytes(self._model, self._optimizer, [inputs]) as live:
            yield
        self.peak_bytes = live.report().peak_bytes
        self.current_bytes = sum(live.bytes_by_kind.values())


def make_meter(device: torch.device) -> MemoryMeter:
    """The meter for training on `device`."""
    return AllocatorMeter(device) if device.type == "cuda" else CountingMeter()


class MemoryWatch:
    """What one stage was predicted to hold, what it does hold, and what would pay: for the log, MLflow and a file."""

    def __init__(self, step: StepMemory, fit: Fit, largest_batch_size: int) -> None:
        """Before training; `largest_batch_size` is the most that may be advised."""
        self._fit = fit
        self._advice = advise(look_ahead(step, fit, largest_batch_size))
        self.meter = make_meter(step.device)

    def announce(self, tracker: Tracker) -> None:
        """Say what is predicted, before training."""
        fit = self._fit
        logger.info(
            "memory: batch %d, %s; predicted peak %s, %s free for it",
            fit.batch_size,
            fit.treatment,
            format_bytes(fit.predicted_peak_bytes),
            format_bytes(fit.available_bytes),
        )
        if self._advice:
            logger.info("memory: %s", self._advice)
        known = {name: value for name, value in self.record().items() if name not in _KNOWN_LATER}
        tracker.log_params({"memory": known})
        tracker.log_metrics({"memory/predicted_peak_bytes": fit.predicted_peak_bytes}, step=0)

    def metrics(self) -> dict[str, float]:
        """What is measured by now, under the names that MLflow has for it."""
        measured = {"memory/peak_bytes": self.meter.peak_bytes, "memory/current_bytes": self.meter.current_bytes}
        return {name: num_bytes for name, num_bytes in measured.items() if num_bytes is not None}

    def record(self) -> dict[str, str | int | None]:
        """What is known by now; `aerofuse.comparison.times.MemoryRecord` says what is what."""
        return {
            "batch_size": self._fit.batch_size,
            "predicted_peak_bytes": self._fit.predicted_peak_bytes,
            "peak_bytes": self.meter.peak_bytes,
            "measured": self.meter.measured,
            "available_bytes": self._fit.available_bytes,
            "treatment": self._fit.treatment,
            "advice": self._advice,
        }


def look_ahead(step: StepMemory, fit: Fit, largest_batch_size: int) -> Outlook:
    """What advice can be given on: how the step that was fitted compares with one without checkpointing."""
    least_bytes = unchecked_bytes = fit.predicted_peak_bytes
    if fit.plan is not None:
        unchecked_bytes = step.planned(fit.batch_size, fit.plan.unchecked)
        least_bytes = min(least_bytes, step.planned(fit.batch_size, fit.plan.curve[0]))
    elif step.checkpoints:
        unchecked_bytes = step.count_unchecked(fit.batch_size)
    return Outlook(
        available_bytes=fit.available_bytes,
        fixed_bytes=step.fixed_bytes,
        gradient_bytes=step.gradient_bytes,
        batch_size=fit.batch_size,
        largest_batch_size=largest_batch_size,
        peak_bytes=least_bytes,
        unchecked_peak_bytes=unchecked_bytes,
        checkpointing=step.checkpoints and (fit.plan is None or not fit.plan.keeps_everything),
    )
