"""Which torch functions can be computed again, which of them cheaply, and what some of them need for it."""

from __future__ import annotations

import functools
import inspect
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from aerofuse.memory.fake import tensors_of
from aerofuse.memory.torch_private import all_modes_off

# Cheap: time in proportion to the bytes moved, and a result about as large as the input. Pooling and other
# reductions give small results, which are better saved.
_NORMALISATIONS = ("layer_norm", "group_norm", "batch_norm", "rms_norm", "instance_norm", "softmax", "log_softmax")
_ACTIVATIONS = ("relu", "relu6", "gelu", "silu", "mish", "hardswish", "hardsigmoid", "hardtanh", "sigmoid", "tanh")
_ARITHMETIC = ("add", "sub", "rsub", "mul", "div", "neg", "pow", "sqrt", "rsqrt", "exp", "square", "where", "clamp")
_COPIES = ("pad", "roll", "reshape", "contiguous", "clone", "flatten", "cat", "stack", "to", "type_as", "float", "type")
CHEAP = frozenset((*_NORMALISATIONS, *_ACTIVATIONS, *_ARITHMETIC, *_COPIES))

DROPOUT = "dropout"

# They compute nothing: attributes, and other views of the same memory. `reshape` and the like may copy.
_VIEWS = ("view", "permute", "transpose", "expand", "unbind", "chunk", "split", "unsqueeze", "squeeze", "unflatten")
_QUESTIONS = ("__get__", "size", "dim", "stride", "numel", "is_contiguous", "is_floating_point", "__len__")
LOOKED_THROUGH = frozenset((*_VIEWS, *_QUESTIONS))

# Those which autocast gives inputs of lower precision, and which are expensive.
MATRIX_PRODUCTS = frozenset(
    ("linear", "conv1d", "conv2d", "conv3d", "matmul", "bmm", "baddbmm", "addmm", "mm", "scaled_dot_product_attention")
)

# Small results, so that saving them costs next to nothing; but they may lead to what is large.
_REDUCTIONS = ("mean", "sum", "adaptive_avg_pool2d", "avg_pool2d", "max_pool2d", "einsum")
REPEATABLE = CHEAP | MATRIX_PRODUCTS | frozenset(_REDUCTIONS)


class CallNames:
    """Names the calls of one run of a unit: `linear.0`, `gelu.0`, `linear.1`, the same in every run."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def next(self, function: str) -> str:
        """Return the name of a call of the function of that name."""
        self._counts[function] += 1
        return f"{function}.{self._counts[function] - 1}"


def written_over(func: Callable[..., Any], args: Sequence[Any], keywords: Mapping[str, Any]) -> list[Tensor]:
    """Return the tensors that a call is told to write over: in place by its name or by a flag, or as `out`.

    A call that writes unasked is known by the `_version` of the tensor afterwards alone.
    """
    if keywords and keywords.get("out") is not None:
        return list(tensors_of([keywords["out"]]))
    by_name, position = _ways_of_writing(func)
    if by_name or (keywords and keywords.get("inplace")) or (position and args[position : position + 1] == (True,)):
        return list(tensors_of([args[0] if args else keywords.get("input")]))
    return []


@functools.cache
def _ways_of_writing(func: Callable[..., Any]) -> tuple[bool, int]:
    """Return whether a function writes in place by its name, and where its argument `inplace` is, 0 for none."""
    name = getattr(func, "__name__", "")
    # `Tensor.pow` is a function of Python around one that has no signature.
    names = list(inspect.signature(func, follow_wrapped=False).parameters) if inspect.isfunction(func) else []
    by_name = name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))
    return by_name, names.index("inplace") if "inplace" in names else 0


def stacked_factors(args: Sequence[Any], keywords: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """Return the left and right factor of a `matmul` that torch turns into stacks of matrices, `None` for any other.

    Where the dimensions before the last two do not follow each other in memory, as those of the heads of an attention,
    that copies them: see `_matmul_impl` in ATen/native/LinearAlgebra.cpp.
    """
    if keywords or len(args) != 2 or not all(isinstance(argument, Tensor) for argument in args):
        return None
    left, right = args
    if left.ndim < 4 or left.shape[:-2] != right.shape[:-2]:
        return None
    return {"left": left, "right": right}


def stack_shape(factor: Tensor) -> tuple[int, int, int]:
    """That of the stack of matrices."""
    return (math.prod(factor.shape[:-2]), *factor.shape[-2:])


def dropout_arguments(
    input: Tensor,  # the parameter's name in torch
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
) -> tuple[Tensor, float, bool, bool]:
    return input, p, training, inplace


def dropout_noise(size: torch.Size, stride: Sequence[int], dtype: torch.dtype, probability: float) -> Tensor:
    return torch.empty_strided(size, stride, dtype=dtype).bernoulli_(1 - probability).div_(1 - probability)


class BatchNormCall(NamedTuple):
    """The arguments of one batch normalisation, named as torch names them."""

    input: Tensor
    running_mean: Tensor | None
    running_var: Tensor | None
    weight: Tensor | None = None
    bias: Tensor | None = None
    training: bool = False
    momentum: float = 0.1
    eps: float = 1e-5

    def without_running_statistics(self) -> BatchNormCall:
        """Return the arguments that give the same result and update nothing."""
        return self._replace(running_mean=None, running_var=None) if self.training else self

    def can_be_replayed(self) -> bool:
        """Return whether `replay_batch_norm` gives the bits of torch's own kernel: known of float32 on CPUs only."""
        tensors = (self.input, self.weight, self.bias)
        return (
            self.training
            and all(t is not None and t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors)
            and self.input.numel() > self.input.shape[1]  # of a single value per channel torch makes an error
            and _replay_is_exact()
        )

    def run(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the result, and the mean and the inverse deviation that it was computed with."""
        return torch.native_batch_norm(  # what torch.batch_norm calls on a CPU
            self.input, self.weight, self.bias, self.running_mean, self.running_var, True, self.momentum, self.eps
        )


def replay_batch_norm(input: Tensor, mean: Tensor, inverse_deviation: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return a batch normalisation by statistics already found: one multiply-add instead of three passes."""
    # Fused, as in torch's kernel: a product that is rounded before the sum has other last bits.
    per_channel = [1, -1] + [1] * (input.ndim - 2)
    scale = inverse_deviation * weight
    shift = torch.addcmul(bias, mean, scale, value=-1)
    return torch.addcmul(shift.view(per_channel), input, scale.view(per_channel))


@functools.cache
def _replay_is_exact() -> bool:
    """Return whether this processor's kernels round alike: those without fused multiply-add may not."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 17, 7, 7), (4, 8, 16, 16), (3, 5, 33, 1))
    with all_modes_off(), torch.no_grad():
        for shape in shapes:
            for memory_format in (torch.contiguous_format, torch.channels_last):
                images = torch.randn(shape, generator=generator).mul_(3).add_(1).contiguous(memory_format=memory_format)
                weight, bias = torch.randn(2, shape[1], generator=generator)
                expected, mean, deviation = BatchNormCall(images, None, None, weight, bias, True).run()
                if not torch.equal(expected, replay_batch_norm(images, mean, deviation, weight, bias)):
                    return False
    return True
