"""The bytes that one unit takes under a policy: counted while it runs alone, on fake tensors or real ones."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from aerofuse.memory.counter import LiveBytes

Autocasting = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class UnitBytes:
    """What one run of a unit takes, its input left out.

    - `saved`: alive between its forward and its backward pass, its output left out.
    - `forward`: at most alive while it runs forward, its output included.
    - `backward`: at most alive in its backward pass: what it saved, what it computes again, the gradient of its output
      and that of its input.
    - `backward_total`: the same with the gradients of its parameters, which are `gradients` in all.
    """

    saved: int
    forward: int
    backward: int
    backward_total: int
    gradients: int
    output: int
    output_is_saved: bool
    input_is_saved: bool


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
        # Elements of one that was expanded share their memory, and cannot be written to.
        memory = tensor.as_strided((tensor.untyped_storage().nbytes() // tensor.itemsize,), (1,))
        if tensor.is_floating_point():
            memory.uniform_()
        else:
            memory.zero_()
        return tensor


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
    run: Callable[[Tensor], Tensor], modules: Iterable[nn.Module], inputs: TensorLike, autocast: Autocasting
) -> UnitBytes:
    """Run a unit of these modules forward and backward; `run` follows the policy in question."""
    unit = nn.ModuleList(modules)
    trigger = torch.zeros((), device=inputs.device, requires_grad=True)
    with LiveBytes(unit, inputs=[trigger]) as counter:
        outside_bytes = sum(counter.bytes_by_kind.values())
        x = make_inputs(inputs, trigger)
        input_storage = weakref.ref(x.untyped_storage())
        input_bytes = counter.activation_bytes
        counter.reset_peak()
        with autocast():
            output = run(x)
        forward_bytes = counter.report().peak_activation_bytes - input_bytes
        output_storage = output.untyped_storage()
        output_bytes = 0 if output_storage is x.untyped_storage() else output_storage.nbytes()
        del x, output_storage
        output_alive = weakref.ref(output.untyped_storage())
        end = _Outlet.apply(output)  # type: ignore[no-untyped-call]
        del output
        input_is_saved, output_is_saved = input_storage() is not None, output_alive() is not None
        saved_input_bytes = input_bytes if input_is_saved else 0
        saved_bytes = counter.activation_bytes - saved_input_bytes - output_is_saved * output_bytes
        counter.reset_peak()
        if end.requires_grad:  # not where nothing up to here learns
            end.backward()
        peaks = counter.report()
    gradient_bytes = sum(one.grad.nbytes for one in unit.parameters() if one.grad is not None)
    unit.zero_grad()
    return UnitBytes(
        saved=max(saved_bytes, 0),
        forward=forward_bytes,
        backward=peaks.peak_activation_bytes - saved_input_bytes,
        backward_total=peaks.peak_bytes - outside_bytes - saved_input_bytes,
        gradients=gradient_bytes,
        output=output_bytes,
        output_is_saved=output_is_saved,
        input_is_saved=input_is_saved,
    )
