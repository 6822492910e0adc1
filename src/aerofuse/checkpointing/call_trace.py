"""A record of one forward pass: which modules were called, with what, and what their own code did in between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from aerofuse.checkpointing.operations import LOOKED_THROUGH
from aerofuse.checkpointing.tensors import storage_key, tensors_in
from aerofuse.checkpointing.unit_calls import Function, UnitForward, module_of, remove_from
from aerofuse.memory.torch_private import tree_map


@dataclass(frozen=True)
class SeenTensor:
    """A tensor as it was when a call took or returned it."""

    tensor: Tensor
    version: int

    @classmethod
    def all_in(cls, tree: Any) -> tuple[SeenTensor, ...]:
        """Return the tensors among arguments or results."""
        return tuple(cls(tensor, tensor._version) for tensor in tensors_in(tree))

    def is_over(self, other: SeenTensor) -> bool:
        """Return whether both lie in the same memory, which nobody has written to in between."""
        return self.version == other.version and storage_key(self.tensor) == storage_key(other.tensor)


@dataclass(eq=False)
class TracedCall:
    """One call of a module, or of a piece of it.

    `started` counts the operations before. `saved_bytes` are those that autograd saved inside and not before,
    parameters and buffers left out. `read` are the tensors that the module's own code has read, and when; what it
    returns counts as read at its end. `overwrites` says whether it has changed an input in place.
    """

    name: str
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    started: int
    learns: bool
    inputs: tuple[SeenTensor, ...]
    outputs: tuple[SeenTensor, ...] = ()
    saved_bytes: int = 0
    overwrites: bool = False
    children: list[TracedCall] = field(default_factory=list)
    read: list[tuple[int, Tensor]] = field(default_factory=list)

    @property
    def does_nothing(self) -> bool:
        """Return whether it has returned what it was given, as it was: `nn.Identity` does."""
        given = {(id(seen.tensor), seen.version) for seen in self.inputs}
        return all((id(seen.tensor), seen.version) in given for seen in self.outputs)


class CallTrace(TorchFunctionMode):
    """Records the calls of one forward pass of a network; see `CallTaker`. All tensors live as long as the trace."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.calls: list[TracedCall] = []  # the first is that of the whole network
        self.made_at: dict[int, int] = {}
        self._time = 0
        self._stack: list[TracedCall] = []
        self._alive: list[Tensor] = []
        self._saved = {storage_key(tensor) for tensor in (*network.parameters(), *network.buffers())}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in LOOKED_THROUGH or not self._stack:
            return func(*args, **(kwargs or {}))
        self._time += 1
        self._stack[-1].read += [(self._time, tensor) for tensor in tensors_in((args, kwargs or {}))]
        result = func(*args, **(kwargs or {}))
        for tensor in tensors_in(result):
            if id(tensor) not in self.made_at:
                self._alive.append(tensor)
                self.made_at[id(tensor)] = self._time
        return result

    def note_saved(self, tensor: Tensor) -> Tensor:
        """Count what autograd saves, each storage once."""
        if self._stack and storage_key(tensor) not in self._saved:
            self._saved.add(storage_key(tensor))
            self._alive.append(tensor.detach())  # so that no other one takes its place
            self._stack[-1].saved_bytes += tensor.untyped_storage().nbytes()
        return tensor

    def take(self, call: str, function: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run and record one call."""
        self._time += 1
        learns = torch.is_grad_enabled()
        module = self.network.get_submodule(module_of(call))
        held_args, held_kwargs = tree_map(lambda leaf: leaf, (args, dict(kwargs)))  # lists of the network may grow
        inputs = SeenTensor.all_in((args, dict(kwargs)))
        traced = TracedCall(call, module, held_args, held_kwargs, self._time, learns, inputs)
        self._alive += [seen.tensor for seen in inputs]
        self.calls.append(traced)
        parent = self._stack[-1] if self._stack else None
        self._stack.append(traced)
        try:
            result = function(*args, **kwargs)
        finally:
            self._stack.pop()
        self._time += 1
        traced.outputs = SeenTensor.all_in(result)
        traced.overwrites = any(seen.tensor._version != seen.version for seen in inputs)
        traced.learns = learns and any(seen.tensor.requires_grad for seen in traced.outputs)
        traced.read += [(self._time, seen.tensor) for seen in traced.outputs]
        for seen in traced.outputs:
            self.made_at.setdefault(id(seen.tensor), self._time)
        if parent is not None:
            parent.children.append(traced)
            parent.saved_bytes += traced.saved_bytes
        return result


def trace_calls(network: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> CallTrace:
    """Return the record of `network(*args, **kwargs)`. Give it a copy: state that a pass advances is advanced."""
    trace = CallTrace(network)
    for name, module in network.named_modules():
        module.forward = UnitForward(module, name, trace)
    try:
        with torch.enable_grad(), saved_tensors_hooks(trace.note_saved, lambda tensor: tensor), trace:
            network(*args, **kwargs)
    finally:
        for module in network.modules():
            remove_from(module)
    return trace
