"""Units that were found in a trace, as functions of one tensor: to be counted and timed alone."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from aerofuse.checkpointing.call_trace import TracedCall
from aerofuse.checkpointing.chain import Unit
from aerofuse.checkpointing.find_units import TracedChain, TracedUnit, flowing
from aerofuse.checkpointing.pieces import modules_of_piece, pieces_of
from aerofuse.checkpointing.tensors import storage_key, tensors_in
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


def signature_of(unit: Unit) -> Hashable:
    """Return what is equal for units that save and compute the same; rates such as dropout's count as on or off."""
    assert isinstance(unit.run, BoundRun)
    return tuple(call.signature for call in unit.run.calls)


class BoundRun:
    """A unit as a function of one tensor."""

    def __init__(self, calls: list[_BoundCall]) -> None:
        self.calls = calls

    def __call__(self, x: Tensor) -> Tensor:
        for call in self.calls:
            x = call.run(x)
        return x


class _BoundCall:
    """A call of a module, with the tensor that flows into it and made-up others."""

    def __init__(self, call: TracedCall, flow: Tensor, network: nn.Module) -> None:
        module = network.get_submodule(module_of(call.name))
        _, _, piece = call.name.partition(":")
        self._function = pieces_of(module)[piece] if piece else forward_of(module)
        self._modules = modules_of_piece(module, piece)
        self._piece = piece
        self._arguments = tree_map(partial(_layout, flow=flow), (call.args, dict(call.kwargs)))
        self._samples = flow.shape[0] if flow.ndim else 0
        # Of several outputs, the one that could flow into such a unit again: TNT's blocks return pixels and patches.
        learning = [number for number, seen in enumerate(call.outputs) if seen.tensor.requires_grad]
        self._returns = max(learning, key=lambda number: call.outputs[number].tensor.size() == flow.size(), default=0)
        self._made: dict[tuple[int, int], Tensor] = {}

    @property
    def signature(self) -> Hashable:
        modules = tuple(_signature(module) for top in self._modules for module in top.modules())
        return self._piece, tuple(map(repr, tree_flatten(self._arguments)[0])), modules

    def run(self, x: Tensor) -> Tensor:
        args, kwargs = tree_map(partial(self._fill, x=x), self._arguments)
        return tensors_in(self._function(*args, **kwargs))[self._returns]

    def _fill(self, leaf: Any, x: Tensor) -> Any:
        """Return an argument for as many samples as `x` has."""
        key = id(leaf), len(x) if x.ndim else 0
        if isinstance(leaf, (_FlowPlace, TensorLike)) and x.ndim and leaf.size and leaf.size[0] == self._samples:
            leaf = replace(leaf, size=(len(x), *leaf.size[1:]))
        if isinstance(leaf, _FlowPlace):
            is_whole = (tuple(x.size()), x.stride()) == (leaf.size, leaf.stride)
            return x if is_whole else x.as_strided(leaf.size, leaf.stride, leaf.offset)
        if not isinstance(leaf, TensorLike):
            return leaf
        if key not in self._made:
            self._made[key] = leaf.make().requires_grad_(leaf.requires_grad)
        return self._made[key]


@dataclass(frozen=True)
class _FlowPlace:
    """The place of the tensor that flows, or of another view of it."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


def _layout(leaf: Any, flow: Tensor) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    if storage_key(leaf) == storage_key(flow) and leaf.dtype == flow.dtype:
        return _FlowPlace(tuple(leaf.size()), leaf.stride(), int(leaf.storage_offset()))
    return TensorLike.of(leaf)


def _signature(module: nn.Module) -> Hashable:
    settings: list[tuple[str, object]] = []
    for name, value in sorted(vars(module).items()):
        if isinstance(value, float):
            settings.append((name, bool(value)))
        elif isinstance(value, (bool, int, str, tuple)) or value is None:
            settings.append((name, repr(value)))
    tensors = [
        (name, tuple(tensor.shape), tensor.dtype, tensor.requires_grad)
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    ]
    return type(module), tuple(settings), tuple(tensors)
