"""Which torch functions are cheap to compute again, and what some of them need for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# Cheap: time in proportion to the bytes moved, and a result about as large as the input. Pooling and other
# reductions give small results, which are better kept. Variants in place end with an underscore.
_NORMALISATIONS = ("layer_norm", "group_norm", "batch_norm", "rms_norm", "instance_norm", "softmax", "log_softmax")
_ACTIVATIONS = ("relu", "relu6", "gelu", "silu", "mish", "hardswish", "hardsigmoid", "hardtanh", "sigmoid", "tanh")
_ARITHMETIC = ("add", "sub", "rsub", "mul", "div", "neg", "pow", "sqrt", "rsqrt", "exp", "square", "where", "clamp")
_COPIES = ("pad", "roll", "reshape", "contiguous", "clone", "flatten", "cat", "stack", "to", "type_as", "float", "type")
CHEAP = frozenset((*_NORMALISATIONS, *_ACTIVATIONS, *_ARITHMETIC, *_COPIES))

DROPOUT = "dropout"

# Those which autocast gives inputs of lower precision.
MATRIX_PRODUCTS = frozenset(
    ("linear", "conv1d", "conv2d", "conv3d", "matmul", "bmm", "baddbmm", "addmm", "mm", "scaled_dot_product_attention")
)


def dropout_arguments(
    input: Tensor,  # the parameter's name in torch
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,  # noqa: ARG001  # in a thinned unit nothing that has a recipe is changed in place
) -> tuple[Tensor, float, bool]:
    return input, p, training


def dropout_noise(size: torch.Size, stride: Sequence[int], dtype: torch.dtype, probability: float) -> Tensor:
    return torch.empty_strided(size, stride, dtype=dtype).bernoulli_(1 - probability).div_(1 - probability)


def without_running_statistics(
    input: Tensor,  # the parameter's name in torch
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Sequence[Any], dict[str, Any]]:
    """The arguments of a batch normalisation that gives the same result and updates nothing."""
    if not training:
        return (input, running_mean, running_var, weight, bias, False, momentum, eps), {}
    return (input, None, None, weight, bias, True, 0.0, eps), {}
