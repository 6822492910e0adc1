"""What memory training steps really take, beside what was predicted, and what would fit."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from aerofuse.checkpointing.budget import format_bytes
from aerofuse.memory.counter import LiveBytes
from aerofuse.tracking.tracker import Tracker
from aerofuse.training.fitting import Fit
from aerofuse.training.step_memory import StepMemory

_CLEARLY_LARGER = 1.5  # times the batch; less is not worth the change
_HARDLY_SMALLER = 0.5  # times the batch; for less than that, checkpointing is the better choice
_ROUND = 8  # batches are multiples of it where they can be


@dataclass(frozen=True)
class Outlook:
    """What a step of `batch_size` images takes on a device that has `available_bytes` for it.

    `fixed_bytes` are there whatever the batch: parameters, optimiser state; `gradient_bytes` too, at some time.
    `peak_bytes` is the least that is known to be possible with what is checkpointed now or might be,
    `baseline_peak_bytes` the peak without checkpointing. `checkpointing` says whether anything is computed again.
    """

    available_bytes: int
    fixed_bytes: int
    gradient_bytes: int
    batch_size: int
    largest_batch_size: int
    peak_bytes: int
    baseline_peak_bytes: int
    checkpointing: bool


def advise(outlook: Outlook) -> str:
    """Return such as `batch 48 fits; checkpointing could be off at batch 16`; empty where nothing pays.

    Batches are extrapolated from the one that was counted, on the careful side.
    """
    sentences = []
    larger = _rounded(_batch_within(outlook, outlook.peak_bytes, 0), outlook.largest_batch_size)
    if larger >= _CLEARLY_LARGER * outlook.batch_size:
        sentences.append(f"batch {larger} fits")
    if outlook.checkpointing and outlook.baseline_peak_bytes <= outlook.available_bytes:
        sentences.append(f"checkpointing could be off: batch {outlook.batch_size} fits without it")
    elif outlook.checkpointing:
        # Of a smaller batch the gradients are as large, which a line through the fixed bytes alone would forget.
        within = _batch_within(outlook, outlook.baseline_peak_bytes, outlook.gradient_bytes)
        smaller = _rounded(within, outlook.batch_size)
        if smaller >= max(1, _HARDLY_SMALLER * outlook.batch_size):
            sentences.append(f"checkpointing could be off at batch {smaller}")
    return "; ".join(sentences)


def _batch_within(outlook: Outlook, peak_bytes: int, gradient_bytes: int) -> int:
    """Return the batch that takes what is available, where the current one takes `peak_bytes`; 0 where none does."""
    fixed_bytes = outlook.fixed_bytes + gradient_bytes
    growing_bytes, room_bytes = peak_bytes - fixed_bytes, outlook.available_bytes - fixed_bytes
    return outlook.batch_size * room_bytes // growing_bytes if min(growing_bytes, room_bytes) > 0 else 0


def _rounded(batch_size: int, largest: int) -> int:
    """Return a batch of at most `largest`, which itself needs no rounding."""
    return largest if batch_size >= largest else batch_size // _ROUND * _ROUND or batch_size


logger = logging.getLogger(__name__)


class MemoryMeter:
    """What the training loop tells of its steps. This one measures nothing.

    `peak_bytes` is the most that steps took so far, `current_bytes` what was left after the last one measured.
    """

    measured = "not measured"

    def __init__(self) -> None:
        self.peak_bytes: int | None = None
        self.current_bytes: int | None = None

    def attach(self, model: nn.Module, optimizer: Optimizer, batches: int, accumulation_steps: int) -> None:
        """Before the first epoch: what is trained, the batches of an epoch, and how many make an update."""

    def epoch(self) -> AbstractContextManager[None]:
        """Return the context of an epoch's training steps."""
        return nullcontext()

    def step(self, inputs: Tensor) -> AbstractContextManager[None]:  # noqa: ARG002  # this meter does not look
        """Return the context of one batch, forward, backward and update."""
        return nullcontext()


class AllocatorMeter(MemoryMeter):
    """On CUDA: the allocator's own figures, of every epoch."""

    measured = "by the allocator"

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device

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
    """Return the meter for training on `device`."""
    return AllocatorMeter(device) if device.type == "cuda" else CountingMeter()


class MemoryWatch:
    """What memory one stage was predicted to take and does take, and what would pay: for log, MLflow and a file."""

    def __init__(self, step: StepMemory, fit: Fit, largest_batch_size: int) -> None:
        """Before training; `largest_batch_size` is the most that may be advised."""
        self._fit = fit
        self._advice = advise(look_ahead(step, fit, largest_batch_size))
        self.meter = make_meter(step.device)

    def announce(self, tracker: Tracker) -> None:
        """Say what is predicted, before training."""
        fit = self._fit
        peak, free = format_bytes(fit.predicted_peak_bytes), format_bytes(fit.available_bytes)
        logger.info("memory: batch %d, %s; predicted peak %s, %s free for it", fit.batch_size, fit.policy, peak, free)
        if self._advice:
            logger.info("memory: %s", self._advice)
        known = {name: value for name, value in self.record().items() if name not in ("peak_bytes", "measured")}
        tracker.log_params({"memory": known})
        tracker.log_metrics({"memory/predicted_peak_bytes": fit.predicted_peak_bytes}, step=0)

    def metrics(self) -> dict[str, float]:
        """Return what is measured by now, under the names that MLflow has for it."""
        measured = {"memory/peak_bytes": self.meter.peak_bytes, "memory/current_bytes": self.meter.current_bytes}
        return {name: num_bytes for name, num_bytes in measured.items() if num_bytes is not None}

    def record(self) -> dict[str, str | int | None]:
        """Return what is known by now; `aerofuse.comparison.times.MemoryRecord` says what is what."""
        return {
            "batch_size": self._fit.batch_size,
            "predicted_peak_bytes": self._fit.predicted_peak_bytes,
            "peak_bytes": self.meter.peak_bytes,
            "measured": self.meter.measured,
            "available_bytes": self._fit.available_bytes,
            "policy": self._fit.policy,
            "advice": self._advice,
        }


def look_ahead(step: StepMemory, fit: Fit, largest_batch_size: int) -> Outlook:
    """Return what advice can be given on: how the step that was fitted compares with one without checkpointing."""
    least_bytes = baseline_bytes = fit.predicted_peak_bytes
    if fit.plan is not None:
        baseline_bytes = step.planned(fit.batch_size, fit.plan.baseline)
        least_bytes = min(least_bytes, step.planned(fit.batch_size, fit.plan.curve[0]))
    elif step.checkpoints:
        baseline_bytes = step.count_baseline(fit.batch_size)
    return Outlook(
        available_bytes=fit.available_bytes,
        fixed_bytes=step.fixed_bytes,
        gradient_bytes=step.gradient_bytes,
        batch_size=fit.batch_size,
        largest_batch_size=largest_batch_size,
        peak_bytes=least_bytes,
        baseline_peak_bytes=baseline_bytes,
        checkpointing=step.checkpoints and (fit.plan is None or not fit.plan.saves_everything),
    )
