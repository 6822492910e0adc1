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
# By the name of a torch function: the kernel of its backward pass, which takes the gradient, what was saved, an option
# and the tensor to write to; and that option, from the arguments after the input. It takes no other arguments.
_BACKWARD: Mapping[str, Callable[[Tensor, Tensor, Any, Tensor], Any]] = {
    "softmax": lambda gradient, saved, dim, out: _aten._softmax_backward_data.out(
        gradient, saved, dim, saved.dtype, grad_input=out
    ),
    "gelu": lambda gradient, saved, approximate, out: _aten.gelu_backward.grad_input(
        gradient, saved, approximate=approximate, grad_input=out
    ),
    "silu": lambda gradient, saved, _, out: _aten.silu_backward.grad_input(gradient, saved, grad_input=out),
    "relu": lambda gradient, saved, _, out: _aten.threshold_backward.grad_input(gradient, saved, 0, grad_input=out),
}
_OPTION: Mapping[str, Callable[..., Any]] = {
    "softmax": lambda dim, *, _stacklevel=3: dim,
    "gelu": lambda *, approximate="none": approximate,
    "silu": lambda *, inplace=False: inplace,
    "relu": lambda *, inplace=False: inplace,
}
_SAVES_RESULT = ("softmax", "relu")


class _InPlaceFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, name: str, option: Any, run: Callable[[], Tensor]) -> Tensor:
        output = run()
        if output is inputs:
            ctx.mark_dirty(inputs)
            # What was written over need not be copied: the hooks know how to compute it again.
            inputs = inputs.new_empty(()).expand(inputs.shape)
        ctx.save_for_backward(output if name in _SAVES_RESULT else inputs)
        ctx.name, ctx.option = name, option
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (saved,) = ctx.saved_tensors
        out = saved if _may_be_overwritten(saved, gradient) else torch.empty_like(saved)
        return _BACKWARD[ctx.name](gradient, saved, ctx.option, out), None, None, None


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
    if name not in _BACKWARD or not args or not _is_plain(args[0]) or (keywords.get("inplace") and args[0]._is_view()):
        return func(*args, **keywords)
    given = {name: value for name, value in keywords.items() if value is not None}
    try:
        option = _OPTION[name](*args[1:], **given)
    except TypeError:  # something that the kernel cannot do
        return func(*args, **keywords)
    return _InPlaceFunction.apply(args[0], name, option, lambda: func(*args, **keywords))  # type: ignore[no-untyped-call]


def _is_plain(tensor: Any) -> bool:
    return (
        isinstance(tensor, Tensor) and tensor.requires_grad and torch.is_grad_enabled() and tensor.is_floating_point()
    )
