"""One update of the weights: losses, forward and backward passes in parts that fit into memory, and a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
import torch.distributed
from accelerate import Accelerator
from accelerate.utils.memory import clear_device_cache
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from aerofuse.checkpointing.snapshot import RandomState, running_statistics
from aerofuse.data.labels import CLASSIFICATION_TASKS, MISSING_CLASS
from aerofuse.training.distributed import is_sharded
from aerofuse.training.memory_watch import MemoryMeter
from aerofuse.training.micro_batches import Batch, MicroBatches
from aerofuse.training.params import TrainingParams
from aerofuse.training.step_memory import is_out_of_memory

if TYPE_CHECKING:
    from timm.utils import ModelEmaV3  # type: ignore[attr-defined]

_STOP = "stop"  # a key beside the tasks


@dataclass(frozen=True)
class Update:
    """The mean losses of an update's samples, in all and per task, and the norm of the gradient.

    Tensors are scalars on the device. The losses are this process's shares, which add up over the processes.
    `asked_to_stop` says whether any process was asked, so that all of them stop after the same update.
    """

    losses: dict[str, Tensor]
    gradient_norm: Tensor
    asked_to_stop: bool


@dataclass
class Updater:
    """Make updates of a prepared model."""

    model: nn.Module
    optimizer: Optimizer
    schedule: LambdaLR
    params: TrainingParams
    accelerator: Accelerator
    meter: MemoryMeter
    micro_batches: MicroBatches
    average: ModelEmaV3 | None = None
    mix: Callable[[Batch], Batch] = lambda batch: batch
    class_weights: Mapping[str, Tensor] = field(default_factory=dict)

    def update(self, batches: Sequence[Batch], *, asked_to_stop: bool = False) -> Update:
        """Make one update from the sum over all `batches`, as if they were one batch.

        Where memory runs out, the update is made again in smaller parts. Raises `NotFiniteError`, and `MemoryError`
        where not even the smallest part fits, or the optimiser has no room.
        """
        batches = [self.mix(batch) for batch in batches]
        before = _UpdateSnapshot(self.model, self.accelerator.device)
        while True:
            try:
                return self._attempt(batches, asked_to_stop)
            except NoRoomForOptimizerError:
                raise
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or not (self._is_alone or self._on_trial):
                    raise
                reason = str(error)
                among_others = isinstance(error, _OtherProcessError)
            if not (self._is_alone or among_others):
                self._anyone_failed(True)
            # After the `except` block, because the error's frames hold the tensors that were too many.
            self.optimizer.zero_grad()
            clear_device_cache(garbage_collection=True)
            self.micro_batches.make_room(max(len(images) for images, _ in batches), reason)
            before.restore()

    @property
    def plain_model(self) -> nn.Module:
        """Return the model without DDP and compiler, whose weights have the names of the model itself."""
        plain: nn.Module = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        return plain

    def _attempt(self, batches: Sequence[Batch], asked_to_stop: bool) -> Update:
        counts = self._count(batches, asked_to_stop)
        on_trial = self._on_trial
        any_was_asked = bool(counts.pop(_STOP))
        sums: dict[str, Tensor] = {}
        norm = torch.zeros(())
        for number, batch in enumerate(batches):
            is_last = number == len(batches) - 1
            with self.meter.step(batch[0]):
                parts = list(self.micro_batches.parts(batch))
                for part_number, part in enumerate(parts):
                    # Processes exchange gradients once per update.
                    exchanged = is_last and part_number == len(parts) - 1 and not on_trial
                    with nullcontext() if exchanged else self.accelerator.no_sync(self.model):
                        losses = self._backward(part, counts, number)
                    for name, loss in losses.items():
                        sums[name] = sums.get(name, 0) + loss
                if is_last:
                    if on_trial:
                        self._exchange()
                    norm = self._step()
        return Update(sums, norm, any_was_asked)

    def _backward(self, part: Batch, counts: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
        device = self.accelerator.device
        images = part[0].to(device, non_blocking=True)
        targets = {task: values.to(device, non_blocking=True) for task, values in part[1].items()}
        # On trial without DDP, which would wait for processes that have failed.
        model = self.accelerator.unwrap_model(self.model) if self._on_trial else self.model
        with self.accelerator.autocast():
            outputs = model(images)
        losses = task_losses(outputs, targets, counts, self.params.label_smoothing, self.class_weights)
        loss = weighted_sum(losses, self.params.task_weights.model_dump())
        if not torch.isfinite(loss):
            raise NotFiniteError(losses, number)
        # Accelerate averages gradients over the processes, but this loss is a sum over all their samples.
        self.accelerator.backward(loss * self.accelerator.num_processes)
        return {"loss": loss.detach()} | {f"{task}_loss": value.detach() for task, value in losses.items()}

    def _step(self) -> Tensor:
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.params.gradient_clip)
        try:
            self.optimizer.step()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            # Some weights may have moved already: the update cannot begin anew.
            raise NoRoomForOptimizerError(
                f"no room for the optimiser's state ({error}); a smaller backbone, or training.parallelism: fsdp on "
                "several processes, would need less"
            ) from None
        self.optimizer.zero_grad()
        self.schedule.step()
        if self.average is not None:
            self.average.update(self.plain_model, step=self.schedule.last_epoch)
        self.micro_batches.trials = max(0, self.micro_batches.trials - 1)
        assert isinstance(norm, Tensor)
        return (norm.full_tensor() if isinstance(norm, DTensor) else norm).detach()

    def _count(self, batches: Sequence[Batch], asked_to_stop: bool) -> dict[str, Tensor]:
        """Count the labels per task of all batches and processes, and the processes that were asked to stop."""
        labels = [_count_labels(targets) for _, targets in batches]
        # As floats: of several processes one may have a batch that is mixed.
        counts = {task: torch.stack([count[task].float() for count in labels]).sum() for task in labels[0]}
        counts[_STOP] = torch.tensor(int(asked_to_stop))
        counts = {task: count.to(self.accelerator.device) for task, count in counts.items()}
        if self.accelerator.num_processes > 1:
            counts = self.accelerator.reduce(counts, "sum")
        return counts

    @property
    def _is_alone(self) -> bool:
        return bool(self.accelerator.num_processes == 1)

    @property
    def _on_trial(self) -> bool:
        """Return whether several processes first check that all have room, and exchange gradients only then.

        Processes that hold shards of the model wait for each other in the forward pass already.
        """
        return not self._is_alone and self.micro_batches.trials > 0 and not is_sharded(self.model)

    def _exchange(self) -> None:
        """Average the gradients over the processes, as DDP does in its backward pass."""
        if self._anyone_failed(False):
            raise _OtherProcessError("out of memory in another process")
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                parameter.grad /= self.accelerator.num_processes
                torch.distributed.all_reduce(parameter.grad)

    def _anyone_failed(self, failed: bool) -> bool:
        flag = torch.tensor(int(failed), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, "sum"))


class NoRoomForOptimizerError(MemoryError):
    """Memory ran out in the optimiser's step, when the activations were already freed: smaller parts do not help."""


class NotFiniteError(FloatingPointError):
    """A loss is NaN or infinite; `batch` is the number of its batch within the update."""

    def __init__(self, losses: Mapping[str, Tensor], batch: int) -> None:
        values = ", ".join(f"{task} {float(value.detach()):.4g}" for task, value in losses.items())
        super().__init__(f"the loss is no longer finite ({values})")
        self.batch = batch


def task_losses(
    outputs: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    counts: Mapping[str, Tensor] | None = None,
    label_smoothing: float = 0.0,
    class_weights: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Return the mean loss of each task over the samples that have its label, a scalar per task.

    The loss is cross-entropy for logits `[B, C]` with class indices `[B]` or shares of the classes `[B, C]`, and
    SmoothL1 for values `[B]`. A task without a label in the batch gives an exact zero that is still part of the graph,
    so that every parameter has a gradient on every process.

    `counts` are the labels of a larger batch that this one is a part of: the losses of all parts then add up to the
    loss of the larger batch. `label_smoothing` (arXiv 1512.00567) gives that share of each label to all classes alike.
    `class_weights` `[C]` per task, 1 on average over the samples, weigh each sample by its class.
    """
    counts = counts or _count_labels(targets)
    weights = class_weights or {}
    return {
        task: _summed(task, output, targets[task], label_smoothing, weights.get(task)) / counts[task].clamp(min=1)
        for task, output in outputs.items()
    }


def weighted_sum(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Return the loss that is minimised, the weighted sum of the tasks' losses."""
    return torch.stack([weights[task] * loss for task, loss in losses.items()]).sum()


class _OtherProcessError(RuntimeError):
    """Memory ran out in another process."""


def _count_labels(targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Count the labels of each task, a scalar per task."""
    return {task: _labels(task, target).sum() for task, target in targets.items()}


def _summed(task: str, output: Tensor, target: Tensor, label_smoothing: float, class_weights: Tensor | None) -> Tensor:
    # Losses are computed in float32, whatever the model computes in.
    output = output.float()
    if task in CLASSIFICATION_TASKS:
        if target.is_floating_point():  # shares of the classes; a sample without any has no label to smooth
            labelled = target.sum(1, keepdim=True)
            target = target * (1 - label_smoothing) + labelled * label_smoothing / output.shape[1]
            return F.cross_entropy(output, target, weight=class_weights, reduction="sum")
        return F.cross_entropy(
            output,
            target,
            weight=class_weights,
            ignore_index=MISSING_CLASS,
            label_smoothing=label_smoothing,
            reduction="sum",
        )
    # NaN times a mask of 0 is still NaN, so a sample without a label is compared with itself.
    known = torch.where(_labels(task, target).bool(), target, output.detach())
    return F.smooth_l1_loss(output, known, reduction="sum")


def _labels(task: str, target: Tensor) -> Tensor:
    """Return how much of a label each sample has: all or nothing, unless photos are mixed."""
    if task not in CLASSIFICATION_TASKS:
        return ~target.isnan()
    return target.sum(1) if target.is_floating_point() else target != MISSING_CLASS


class _UpdateSnapshot:
    """The random state and the running statistics before an update, for another attempt at it."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._random = RandomState.capture(device)
        self._statistics = [(buffer, buffer.clone()) for buffer in running_statistics(model.modules())]

    def restore(self) -> None:
        self._random.restore()
        with torch.no_grad():
            for buffer, value in self._statistics:
                buffer.copy_(value)
