"""Tensors among arguments and results, and where in memory a tensor lies."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from aerofuse.memory.torch_private import tree_flatten

# Size, stride and offset.
Layout = tuple[torch.Size, tuple[int, ...], int]


def tensors_in(tree: Any) -> list[Tensor]:
    """Return the tensors among arguments or results."""
    if isinstance(tree, Tensor):
        return [tree]
    if type(tree) is tuple and all(type(item) is Tensor for item in tree):  # most often, and slow to flatten
        return list(tree)
    return [leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, Tensor)]


def storage_key(tensor: Tensor) -> int:
    """Return what is equal for tensors over the same memory, as long as they live."""
    return int(tensor.untyped_storage()._cdata)


def layout_of(tensor: Tensor) -> Layout:
    """Return where in its storage the tensor is."""
    return tensor.size(), tensor.stride(), int(tensor.storage_offset())
