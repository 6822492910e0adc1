"""In-place activation backward: it writes the gradient over the tensor that it has read for the last time.

autograd's own backward of an activation needs three tensors of its size: what was saved, the gradient that comes and
the gradient that goes. In a checkpointed unit what was saved has just been computed again and belongs to nobody else,
so its memory can be the result's. torch's kernels write in place element by element, or softmax row by row, with the
same bits. In a transformer's MLP the peak of the backward pass falls by a third.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from aerofuse.memory.torch_private import num_owners

_aten = torch.ops.aten
# By the name of a torch function: whether autograd saves the result or the input, and the backward kernel, which
# takes the gradient, what was saved, the options and the tensor to write to.
_Kernel = Callable[[Tensor, Tensor, Any, Tensor], Tensor]


def _softmax_backward(gradient: Tensor, saved: Tensor, dim: Any, out: Tensor) -> Tensor:
    result: Tensor = _aten._softmax_backward_data.out(gradient, saved, dim, saved.dtype, grad_input=out)
    return result


def _gelu_backward(gradient: Tensor, saved: Tensor, approximate: Any, out: Tensor) -> Tensor:
    result: Tensor = _aten.gelu_backward.grad_input(gradient, saved, approximate=approximate, grad_input=out)
    return result


def _silu_backward(gradient: Tensor, saved: Tensor, _: Any, out: Tensor) -> Tensor:
    result: Tensor = _aten.silu_backward.grad_input(gradient, saved, grad_input=out)
    return result


def _relu_backward(gradient: Tensor, saved: Tensor, _: Any, out: Tensor) -> Tensor:
    result: Tensor = _aten.threshold_backward.grad_input(gradient, saved, 0, grad_input=out)
    return result


_SAVES_RESULT = {"softmax": True, "gelu": False, "silu": False, "relu": True}
_KERNELS: Mapping[str, _Kernel] = {
    "softmax": _softmax_backward,
    "gelu": _gelu_backward,
    "silu": _silu_backward,
    "relu": _relu_backward,
}


class _InPlaceFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, name: str, option: Any, run: Callable[[], Tensor]) -> Tensor:
        output = run()
        if output is inputs:
            ctx.mark_dirty(inputs)
            # What was written over need not be copied: the hooks know how to compute it again.
            inputs = inputs.new_empty(()).expand(inputs.shape)
        ctx.save_for_backward(output if _SAVES_RESULT[name] else inputs)
        ctx.name, ctx.option = name, option
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (saved,) = ctx.saved_tensors
        out = saved if _may_be_overwritten(saved, gradient) else torch.empty_like(saved)
        return _KERNELS[ctx.name](gradient, saved, ctx.option, out), None, None, None


def _may_be_overwritten(saved: Tensor, gradient: Tensor) -> bool:
    """Return whether nobody else uses the memory, and the result would lie in it as it would in memory of its own."""
    return (
        num_owners(saved) == 1
        and saved.dtype == gradient.dtype
        and saved.stride() == gradient.stride()
        and saved.numel() * saved.element_size() == saved.untyped_storage().nbytes()
    )


def run_with_in_place_backward(func: Callable[..., Any], args: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
    """Return `func(*args, **keywords)`, with an in-place backward pass where there is one for it.

    For use under hooks that save nothing but how to compute it again: autograd itself may hold what it gives out.
    An activation that is told to write over its input saves, in the place of what was there, a tensor without content.
    """
    name = getattr(func, "__name__", "")
    if name not in _KERNELS or not args or not _is_plain(args[0]) or (keywords.get("inplace") and args[0]._is_view()):
        return func(*args, **keywords)
    silent = ("_stacklevel", "inplace")
    named = {key: value for key, value in keywords.items() if key not in silent and value not in (None, False)}
    option: Any = None
    if name == "softmax":
        option = named.pop("dim", args[1] if len(args) == 2 else None)
        if option is None or len(args) > 2:
            return func(*args, **keywords)
    elif name == "gelu":
        option = named.pop("approximate", "none")
    if named or (name != "softmax" and len(args) > 1):
        return func(*args, **keywords)
    return _InPlaceFunction.apply(args[0], name, option, lambda: func(*args, **keywords))  # type: ignore[no-untyped-call]


def _is_plain(tensor: Any) -> bool:
    return (
        isinstance(tensor, Tensor) and tensor.requires_grad and torch.is_grad_enabled() and tensor.is_floating_point()
    )
