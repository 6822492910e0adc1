"""Units that were found in a trace, as functions of one tensor: to be counted and timed alone."""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from aerofuse.checkpointing.call_trace import TracedCall
from aerofuse.checkpointing.chain import Unit
from aerofuse.checkpointing.find_units import TracedChain, TracedUnit, flowing
from aerofuse.checkpointing.pieces import pieces_of
from aerofuse.checkpointing.tensors import layout_of, storage_key, tensors_in
from aerofuse.checkpointing.unit_calls import FoundUnit, forward_of, module_of
from aerofuse.memory.torch_private import tree_flatten, tree_map
from aerofuse.planning.unit_bytes import TensorLike


def bind(unit: TracedUnit, network: nn.Module) -> Unit:
    """Return a unit of `network`, or of a copy of it, as a function of the tensor that flows into it.

    Other arguments are made up, with the layouts that they had in the trace.
    """
    calls = [_BoundCall(call, flow, network) for call, flow in zip(unit, _flows(unit), strict=True)]
    modules = tuple(dict.fromkeys(network.get_submodule(module_of(call.name)) for call in unit))
    return Unit(FoundUnit(tuple(call.name for call in unit)).name, BoundRun(calls), modules)


def input_of(unit: TracedUnit) -> TensorLike:
    """Return the layout of the tensor that flows into a unit."""
    return TensorLike.of(_flows(unit)[0])


def glue_bytes(before: TracedChain, after: TracedChain) -> int:
    """Return the bytes of the input of a chain that is not what the one before it has returned."""
    x, returned = _flows(after[0])[0], before[-1][-1].outputs
    is_new = storage_key(x) not in {storage_key(seen.tensor) for seen in returned}
    return x.untyped_storage().nbytes() if is_new and x.requires_grad else 0


def _flows(unit: TracedUnit) -> list[Tensor]:
    """Return the tensor that flows into each call: into the first, the largest that requires a gradient."""
    first = max(unit[0].inputs, key=lambda seen: (seen.tensor.requires_grad, seen.tensor.nbytes))
    found = [first.tensor]
    for before, call in pairwise(unit):
        seen = flowing(before, call)
        assert seen is not None
        found.append(seen.tensor)
    return found


class BoundRun:
    """A unit as a function of one tensor. `signature` is what differs where units of equal modules differ."""

    def __init__(self, calls: list[_BoundCall]) -> None:
        self._calls = calls
        self.signature = tuple(call.signature for call in calls)

    def __call__(self, x: Tensor) -> Tensor:
        for call in self._calls:
            x = call.run(x)
        return x


class _BoundCall:
    """A call of a module, with the tensor that flows into it and made-up others."""

    def __init__(self, call: TracedCall, flow: Tensor, network: nn.Module) -> None:
        module = network.get_submodule(module_of(call.name))
        _, _, piece = call.name.partition(":")
        self._function = pieces_of(module)[piece] if piece else forward_of(module)
        self._arguments = tree_map(partial(_place, flow=flow), (call.args, dict(call.kwargs)))
        self.signature = piece, tuple(_signature(leaf) for leaf in tree_flatten(self._arguments)[0])
        self._samples = flow.shape[0] if flow.ndim else 0
        self._returns = next((number for number, seen in enumerate(call.outputs) if seen.tensor.requires_grad), 0)
        self._made: dict[tuple[int, int], Tensor] = {}

    def run(self, x: Tensor) -> Tensor:
        args, kwargs = tree_map(partial(self._fill, x=x), self._arguments)
        return tensors_in(self._function(*args, **kwargs))[self._returns]

    def _fill(self, leaf: Any, x: Tensor) -> Any:
        if isinstance(leaf, _Flowing):
            return leaf.get(x)
        if not isinstance(leaf, TensorLike):
            return leaf
        samples = len(x) if x.ndim and leaf.size and leaf.size[0] == self._samples else 0
        key = (id(leaf), samples)
        if key not in self._made:
            like = leaf.first_samples(samples) if samples else leaf
            self._made[key] = like.make().requires_grad_(leaf.requires_grad)
        return self._made[key]


class _Flowing:
    """The place of the tensor that flows, or of another view of it."""

    def __init__(self, tensor: Tensor, samples: int) -> None:
        self.layout = layout_of(tensor)
        self._samples = samples

    def get(self, x: Tensor) -> Tensor:
        size, stride, offset = self.layout
        if size and size[0] == self._samples and x.ndim:
            size = torch.Size((len(x), *size[1:]))
        return x if (x.size(), x.stride()) == (size, stride) else x.as_strided(size, stride, offset)


def _signature(leaf: Any) -> Hashable:
    if isinstance(leaf, _Flowing):
        return tuple(leaf.layout)
    return leaf if isinstance(leaf, TensorLike) else repr(leaf)


def _place(leaf: Any, flow: Tensor) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    if storage_key(leaf) == storage_key(flow) and leaf.dtype == flow.dtype:
        return _Flowing(leaf, flow.shape[0] if flow.ndim else 0)
    return TensorLike.of(leaf)
