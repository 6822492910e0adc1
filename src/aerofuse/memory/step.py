"""Counting the memory of one training step."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial, reduce
from itertools import chain
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from aerofuse.hardware import device_name
from aerofuse.memory.counter import LiveBytes
from aerofuse.memory.fake import fake_copy
from aerofuse.memory.report import MemoryReport

Precision = Literal["float32", "bf16"]
OptimizerName = Literal["adamw"]

_CUDA_BLOCK_BYTES = 512  # CUDA's allocator gives memory in multiples of it


def sum_of_outputs(outputs: Tensor | Mapping[str, Tensor]) -> Tensor:
    """The sum of all elements of a model's floating-point outputs, a scalar.

    Raises `ValueError` where no output is of floating point.
    """
    tensors = [outputs] if isinstance(outputs, Tensor) else list(outputs.values())
    sums = [tensor.sum() for tensor in tensors if tensor.is_floating_point()]
    if not sums:
        raise ValueError("no output of the model is of floating point; pass a loss of your own")
    return reduce(operator.add, sums)


def count_training_step(
    model: nn.Module,
    input_shape: Sequence[int],
    *,
    loss: Callable[[Any], Tensor] = sum_of_outputs,
    optimizer: OptimizerName | None = "adamw",
    precision: Precision = "float32",
    input_dtype: torch.dtype = torch.float32,
    fake: bool = False,
) -> MemoryReport:
    """The peak memory of a training step: forward, backward, and the optimiser's step where there is one.

    `input_shape` is that of the batch, `[B, 3, H, W]` for images; `loss` makes a scalar of what the model returns.
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
    _check_choice("optimizer", optimizer, (*get_args(OptimizerName), None))
    _check_choice("precision", precision, get_args(Precision))
    if not input_shape or min(input_shape) < 1:
        raise ValueError(f"input_shape is {tuple(input_shape)}; it needs sizes of at least 1, such as (8, 3, 224, 224)")
    device = _device_of(model)
    if device.type == "meta" and not fake:
        raise ValueError("the model is on the device meta, so its steps cannot be run; count them with fake=True")
    start = partial(
        _Training,
        input_shape=input_shape,
        input_dtype=input_dtype,
        loss=loss,
        optimizer=optimizer,
        precision=precision,
    )
    if fake:
        with fake_copy(model, mixed_precision=precision != "float32") as fake_model:
            training = start(fake_model)
            training.give_optimizer_its_state()
            report = training.count_step()
        return replace(report, source="counted on fake tensors")
    with _put_back(model, device):
        training = start(model)
        if device.type == "cuda":
            return _count_on_cuda(training, device)
        training.step()
        return training.count_step()


class _Training:
    """A model, its optimiser and a batch."""

    def __init__(
        self,
        model: nn.Module,
        *,
        input_shape: Sequence[int],
        input_dtype: torch.dtype,
        loss: Callable[[Any], Tensor],
        optimizer: OptimizerName | None,
        precision: Precision,
    ) -> None:
        self.model = model.train()
        device = _device_of(model)
        make_inputs = torch.rand if input_dtype.is_floating_point else torch.zeros
        self.inputs = make_inputs(*input_shape, dtype=input_dtype, device=device)
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = AdamW(parameters) if optimizer is not None else None
        self._loss = loss
        self._autocast = partial(torch.autocast, device.type, torch.bfloat16, enabled=precision == "bf16")

    def step(self) -> None:
        """One step, without gradients before and after."""
        with self._autocast():
            outputs = self.model(self.inputs)
        self._loss(outputs).backward()
        if self.optimizer is not None:
            self.optimizer.step()
        self.model.zero_grad()

    def give_optimizer_its_state(self) -> None:
        """Let the optimiser step over gradients of zeros, without a forward and backward pass."""
        if self.optimizer is None:
            return
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()
        self.model.zero_grad()

    def count_step(self) -> MemoryReport:
        """What one more step holds at most."""
        with LiveBytes(self.model, self.optimizer, [self.inputs]) as live:
            self.step()
        return live.report()


def _count_on_cuda(training: _Training, device: torch.device) -> MemoryReport:
    blocks = {
        tensor.untyped_storage().data_ptr(): -(-tensor.untyped_storage().nbytes() // _CUDA_BLOCK_BYTES)
        for tensor in chain(training.model.parameters(), training.model.buffers(), [training.inputs])
    }
    # Found before the first step, so that what libraries then reserve as their work space is not foreign.
    foreign_bytes = torch.cuda.memory_allocated(device) - sum(blocks.values()) * _CUDA_BLOCK_BYTES
    training.step()
    torch.cuda.reset_peak_memory_stats(device)
    report = training.count_step()
    peak_bytes = torch.cuda.max_memory_allocated(device) - foreign_bytes
    return replace(report, peak_bytes=peak_bytes, source=f"allocator of {device_name(device)}")


def _check_choice(name: str, value: object, allowed: Sequence[object]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, allowed))}")


def _device_of(model: nn.Module) -> torch.device:
    """Where the model is. Raises `ValueError` where it is on several devices, or has nothing to learn."""
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("no parameter of the model requires a gradient, so there is no training step to count")
    devices = {tensor.device for tensor in chain(model.parameters(), model.buffers())}
    if len(devices) > 1:
        raise ValueError(f"the model is on {', '.join(sorted(map(str, devices)))}; move it to one device")
    return devices.pop()


@contextmanager
def _put_back(model: nn.Module, device: torch.device) -> Iterator[None]:
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
