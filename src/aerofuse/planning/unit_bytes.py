"""The bytes that one unit takes under a policy: counted while it runs alone, on fake tensors or real ones."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.utils.hooks import RemovableHandle

from aerofuse.memory.counter import StorageCounter
from aerofuse.memory.report import Kind
from aerofuse.memory.torch_private import in_backward


@dataclass(frozen=True)
class UnitBytes:
    """What one run of a unit took, its input left out; see `UnitPolicy` for the terms."""

    output_bytes: int
    output_is_saved: bool
    input_is_saved: bool
    saved_bytes: int
    forward_bytes: int
    backward_bytes: int
    backward_total_bytes: int


@dataclass(frozen=True)
class TensorLike:
    """The layout of a tensor that goes from one unit to the next."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    requires_grad: bool

    @classmethod
    def of(cls, tensor: Tensor) -> TensorLike:
        """Return the layout of `tensor`."""
        return cls(tuple(tensor.size()), tensor.stride(), tensor.dtype, tensor.device, tensor.requires_grad)

    def first_samples(self, count: int) -> TensorLike:
        """Return the layout of so many of the samples that the first dimension counts."""
        return replace(self, size=(count, *self.size[1:]))

    def make(self) -> Tensor:
        """Return such a tensor, with values from 0 to 1 where it is real."""
        tensor = torch.empty_strided(self.size, self.stride, dtype=self.dtype, device=self.device)
        return tensor.uniform_() if tensor.is_floating_point() else tensor.zero_()


class _Inlet(torch.autograd.Function):
    """An input of a unit that is no leaf, so that nothing but the unit refers to it."""

    @staticmethod
    def forward(ctx: FunctionCtx, trigger: Tensor, like: TensorLike) -> Tensor:  # noqa: ARG004 (as torch calls it)
        return like.make()

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004
        return gradient.new_zeros(()), None


class _Outlet(torch.autograd.Function):
    """The end of a unit, which makes the gradient of its output in the backward pass and saves nothing before."""

    @staticmethod
    def forward(ctx: Any, output: Tensor) -> Tensor:
        ctx.like = TensorLike.of(output)
        return output.new_zeros(())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        like: TensorLike = ctx.like
        return like.make()


def make_inputs(like: TensorLike, trigger: Tensor) -> Tensor:
    """Return an input of a unit: the result of an operation on `trigger` where it requires a gradient."""
    return _Inlet.apply(trigger, like) if like.requires_grad else like.make()  # type: ignore[no-untyped-call]


def count_unit(
    run: Callable[[Tensor], Tensor],
    parameters: Sequence[nn.Parameter],
    buffers: Sequence[Tensor],
    inputs: TensorLike,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> UnitBytes:
    """Run a unit forward and backward; `run` follows the policy in question."""
    trigger = torch.zeros((), device=inputs.device, requires_grad=True)
    with _Counter(parameters, [*buffers, trigger]) as counter:
        x = make_inputs(inputs, trigger)
        input_storage = weakref.ref(x.untyped_storage())
        before = counter.live
        counter.reset()
        with autocast():
            output = run(x)
        forward_bytes = counter.peak - before
        output_storage = output.untyped_storage()
        output_bytes = 0 if output_storage is x.untyped_storage() else output_storage.nbytes()
        del x, output_storage
        output_alive = weakref.ref(output.untyped_storage())
        end = _Outlet.apply(output)  # type: ignore[no-untyped-call]
        del output
        input_is_saved, output_is_saved = input_storage() is not None, output_alive() is not None
        saved_bytes = counter.live - input_is_saved * before - output_is_saved * output_bytes
        counter.reset()
        if end.requires_grad:  # not where nothing up to here learns
            end.backward()
        outside = input_is_saved * before
    for parameter in parameters:
        parameter.grad = None
    return UnitBytes(
        output_bytes,
        output_is_saved,
        input_is_saved,
        max(saved_bytes, 0),
        forward_bytes,
        counter.peak - outside,
        counter.total_peak - outside,
    )


class _Counter(StorageCounter):
    """Live bytes of what operations return, and their peak, with and without the gradients of parameters."""

    def __init__(self, parameters: Sequence[nn.Parameter], known: Sequence[Tensor]) -> None:
        super().__init__()
        self._parameters = parameters
        for tensor in (*parameters, *known):
            self._storages.reclassify(tensor, Kind.PARAMETERS)
        self._handles: list[RemovableHandle] = []
        self.reset()

    @property
    def live(self) -> int:
        return self._storages.activation_bytes

    def reset(self) -> None:
        self.peak = self.live
        self.total_peak = self._total

    @property
    def _total(self) -> int:
        return self._storages.activation_bytes + self._storages.bytes_by_kind[Kind.GRADIENTS]

    def __enter__(self) -> Self:
        self._handles = [
            parameter.register_post_accumulate_grad_hook(self._note_gradient)
            for parameter in self._parameters
            if parameter.requires_grad
        ]
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        for handle in self._handles:
            handle.remove()
        self._storages.stop()

    def _kind_of_new(self) -> Kind:
        return Kind.ACTIVATIONS

    def _is_backward(self) -> bool:
        return in_backward() and not torch.is_grad_enabled()

    def _note_peaks(self) -> None:
        self.peak = max(self.peak, self.live)
        self.total_peak = max(self.total_peak, self._total)

    def _note_gradient(self, parameter: Tensor) -> None:
        if parameter.grad is not None:
            self._storages.reclassify(parameter.grad, Kind.GRADIENTS)
