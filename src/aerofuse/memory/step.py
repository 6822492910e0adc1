"""Counting the memory of one training step."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial, reduce
from itertools import chain
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from aerofuse.memory.counter import LiveBytes
from aerofuse.memory.fake import FakeCopy
from aerofuse.memory.optimizers import OptimizerChoice, build_optimizer, choose_optimizer
from aerofuse.memory.report import MemoryReport

Precision = Literal["float32", "bf16"]

_CUDA_BLOCK_BYTES = 512  # CUDA's allocator gives memory in multiples of it


def sum_of_outputs(outputs: Any) -> Tensor:
    """Return the sum of all elements of a model's floating-point outputs, a scalar.

    Raises `ValueError` where no output is of floating point.
    """
    return reduce(operator.add, [tensor.sum() for tensor in tensors_of_outputs(outputs)])


def tensors_of_outputs(outputs: Any) -> list[Tensor]:
    """Return the floating-point tensors among what a model returns.

    They may be in lists, tuples, mappings and data classes, one in the other. Raises `ValueError` where there is none.
    """
    found = [tensor for tensor in _tensors(outputs) if tensor.is_floating_point()]
    if not found:
        raise ValueError("no output of the model is of floating point; pass a loss of your own")
    return found


def _tensors(outputs: Any) -> Iterator[Tensor]:
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, Mapping):
        yield from _tensors(list(outputs.values()))
    elif isinstance(outputs, (list, tuple)):
        for output in outputs:
            yield from _tensors(output)
    elif is_dataclass(outputs):
        yield from _tensors([getattr(outputs, field.name) for field in fields(outputs)])


def count_training_step(
    model: nn.Module,
    input_shape: Sequence[int],
    *,
    loss: Callable[[Any], Tensor] = sum_of_outputs,
    optimizer: object = "adamw",
    precision: Precision = "float32",
    input_dtype: torch.dtype = torch.float32,
    fake: bool = False,
) -> MemoryReport:
    """Return the peak memory of a training step: forward, backward, and the optimiser's step where there is one.

    `input_shape` is that of the batch, `[B, 3, H, W]` for images; `loss` makes a scalar of what the model returns.
    `optimizer` is its name, an optimiser of torch for this model, the bytes of its state per parameter, or `None`.
    The optimiser has its state by then, as from the second step on: so on real tensors two steps run on the model's
    device, and the second is counted. Parameters have no gradients when a step begins.

    With `fake` the model is left alone and nothing of its size is allocated: it may be larger than the machine,
    and may have been built on the device `meta`, which stands for the CPU here. Otherwise the steps are real, and
    afterwards parameters, buffers, gradients, training mode and random state are as before; to that end they are
    copied to the CPU's memory. On CUDA the peak is then the allocator's, whose peak statistics are reset, less
    what it held for others.

    Raises `ValueError` for a shape with a size below 1, an unknown optimiser or precision, and a model that learns
    nothing, is on several devices, or is on `meta` without `fake`.
    """
    step = TrainingStep(tuple(input_shape), loss, choose_optimizer(optimizer, model), precision, input_dtype)
    if fake:
        return FakeTraining(model, step).count_step()
    device = _device_of(model)
    if device.type == "meta":
        raise ValueError("the model is on the device meta, so its steps cannot be run; count them with fake=True")
    with put_back(model, device):
        training = _SteppedModel(model, step)
        if device.type == "cuda":
            return _count_on_cuda(training, device)
        training.run()
        return training.count(training.run)


@dataclass(frozen=True)
class TrainingStep:
    """What a training step does besides its model, in the terms of `count_training_step`.

    Raises `ValueError` for a shape with a size below 1, or an unknown precision.
    """

    input_shape: tuple[int, ...]
    loss: Callable[[Any], Tensor] = sum_of_outputs
    optimizer: OptimizerChoice = "adamw"
    precision: Precision = "float32"
    input_dtype: torch.dtype = torch.float32
    # Whether gradients are there already when the batch begins.
    holds_gradients: bool = False

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            allowed = ", ".join(map(repr, get_args(Precision)))
            raise ValueError(f"precision is {self.precision!r}; it must be one of {allowed}")
        if not self.input_shape or min(self.input_shape) < 1:
            raise ValueError(
                f"input_shape is {self.input_shape}; it needs sizes of at least 1, such as (8, 3, 224, 224)"
            )

    def make_inputs(self, device: torch.device) -> Tensor:
        """Return a batch with values from 0 to 1, or of zeros where it is of integers."""
        make = torch.rand if self.input_dtype.is_floating_point else torch.zeros
        return make(*self.input_shape, dtype=self.input_dtype, device=device)


class FakeTraining:
    """The training of a copy of a model on fake tensors, whose steps may be counted again and again.

    What is called a step, and what is raised, is as in `count_training_step`. Between two counts the copy may be
    given other policies, to see what that changes.
    """

    def __init__(self, model: nn.Module, step: TrainingStep) -> None:
        _device_of(model)
        self.copy = FakeCopy(model)
        self._holds_gradients = step.holds_gradients
        with self.copy.active() as fake:
            self._training = _SteppedModel(fake, step)
            self._training.give_zeros_as_gradients()
            self._training.update()  # makes the optimiser's state
            fake.zero_grad()
        self.autocast = self._training.autocast

    def count_step(self) -> MemoryReport:
        """Return a whole step."""
        return self.count_passes().larger(self.count_update())

    def count_passes(self) -> MemoryReport:
        """Return the forward and backward pass, with the optimiser's state there."""
        return self._count(self._training.run_passes, holds_gradients=self._holds_gradients)

    def count_update(self) -> MemoryReport:
        """Return the optimiser's step, with all gradients there: the same however the passes came by them."""
        return self._count(self._training.update, holds_gradients=True)

    def _count(self, part: Callable[[], None], *, holds_gradients: bool) -> MemoryReport:
        with self.copy.active() as fake:
            if holds_gradients:
                self._training.give_zeros_as_gradients()
            report = self._training.count(part)
            fake.zero_grad()
        return report


class _SteppedModel:
    """A model, its optimiser and a batch."""

    def __init__(self, model: nn.Module, step: TrainingStep) -> None:
        self.model = model.train()
        device = _device_of(model)
        self.inputs = step.make_inputs(device)
        self._optimizer = build_optimizer(step.optimizer, model)
        self._loss = step.loss
        self.autocast = partial(torch.autocast, device.type, torch.bfloat16, enabled=step.precision == "bf16")

    def run(self) -> None:
        """One step, without gradients before and after."""
        self.run_passes()
        self.update()
        self.model.zero_grad()

    def run_passes(self) -> None:
        """Forward and backward."""
        with self.autocast():
            outputs = self.model(self.inputs)
        self._loss(outputs).backward()

    def update(self) -> None:
        """The optimiser's part."""
        if self._optimizer is not None:
            self._optimizer.step()

    def give_zeros_as_gradients(self) -> None:
        """As if the passes had been run."""
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)

    def count(self, part: Callable[[], None]) -> MemoryReport:
        """Return what a part of a step takes at most."""
        with LiveBytes(self.model, self._optimizer, [self.inputs]) as live:
            part()
        return live.report()


def _count_on_cuda(training: _SteppedModel, device: torch.device) -> MemoryReport:
    blocks = {
        tensor.untyped_storage().data_ptr(): -(-tensor.untyped_storage().nbytes() // _CUDA_BLOCK_BYTES)
        for tensor in chain(training.model.parameters(), training.model.buffers(), [training.inputs])
    }
    # Found before the first step, so that what libraries then reserve as their work space is not foreign.
    foreign_bytes = torch.cuda.memory_allocated(device) - sum(blocks.values()) * _CUDA_BLOCK_BYTES
    training.run()
    torch.cuda.reset_peak_memory_stats(device)
    report = training.count(training.run)
    return replace(report, peak_bytes=torch.cuda.max_memory_allocated(device) - foreign_bytes)


def _device_of(model: nn.Module) -> torch.device:
    """Return where the model is. Raises `ValueError` where it is on several devices, or has nothing to learn."""
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("no parameter of the model requires a gradient, so there is no training step to count")
    devices = {tensor.device for tensor in chain(model.parameters(), model.buffers())}
    if len(devices) > 1:
        raise ValueError(f"the model is on {', '.join(sorted(map(str, devices)))}; move it to one device")
    return devices.pop()


@contextmanager
def put_back(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Take the gradients off the model, and at the end make it and the random state what they were."""
    tensors = [*model.parameters(), *model.buffers()]
    values = [tensor.detach().to("cpu", copy=True) for tensor in tensors]
    gradients = [parameter.grad for parameter in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    model.zero_grad()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, values, strict=True):
                tensor.copy_(value)
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter.grad = gradient
        for module, training in modes:
            module.training = training
