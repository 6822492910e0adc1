"""A record of one forward pass: which modules were called, with what, and what their own code did in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from aerofuse.checkpointing.operations import LOOKED_THROUGH
from aerofuse.checkpointing.pieces import pieces_of
from aerofuse.memory.torch_private import tree_flatten, tree_map


@dataclass(frozen=True)
class SeenTensor:
    """A tensor as it was when a call took or returned it."""

    tensor: Tensor
    version: int

    @classmethod
    def all_in(cls, tree: Any) -> tuple[SeenTensor, ...]:
        """Return the tensors among arguments or results."""
        return tuple(cls(leaf, leaf._version) for leaf in tree_flatten(tree)[0] if isinstance(leaf, Tensor))

    def is_over(self, other: SeenTensor) -> bool:
        """Return whether both lie in the same memory, which nobody has written to in between."""
        return self.version == other.version and storage_of(self.tensor) == storage_of(other.tensor)


def storage_of(tensor: Tensor) -> int:
    """Return what is equal for tensors over the same memory, as long as they live."""
    return int(tensor.untyped_storage()._cdata)


@dataclass(eq=False)
class TracedCall:
    """One call of a module, or of a piece of it.

    `started` and `ended` count the operations before. `saved_bytes` are those that autograd saved inside and not
    before, parameters and buffers left out. `read` are the tensors that the module's own code has read, and when; what
    it returns counts as read at its end. `overwrites` says whether it has changed an input in place.
    """

    name: str
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    started: int
    learns: bool
    inputs: tuple[SeenTensor, ...]
    outputs: tuple[SeenTensor, ...] = ()
    result: Any = None
    ended: int = 0
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
    """Records the calls of one forward pass of a network. All tensors live as long as the trace."""

    def __init__(self) -> None:
        super().__init__()
        self._time = 0
        self._stack: list[TracedCall] = []
        self.made_at: dict[int, int] = {}
        self._alive: list[Tensor] = []
        self._saved: set[int] = set()
        self.root: TracedCall | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in LOOKED_THROUGH or not self._stack:
            return func(*args, **(kwargs or {}))
        self._time += 1
        inside = self._stack[-1]
        inside.read += [(self._time, leaf) for leaf in _tensors((args, kwargs or {}))]
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            if id(tensor) not in self.made_at:
                self._alive.append(tensor)
                self.made_at[id(tensor)] = self._time
        return result

    def note_saved(self, tensor: Tensor) -> Tensor:
        """Count what autograd saves, each storage once."""
        if self._stack and storage_of(tensor) not in self._saved:
            self._saved.add(storage_of(tensor))
            self._alive.append(tensor.detach())  # so that no other one takes its place
            self._stack[-1].saved_bytes += tensor.untyped_storage().nbytes()
        return tensor

    def know(self, network: nn.Module) -> None:
        """Leave the parameters and buffers of a network out of what is saved."""
        self._saved.update(storage_of(tensor) for tensor in (*network.parameters(), *network.buffers()))

    def take(self, name: str, module: nn.Module, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Run and record one call."""
        self._time += 1
        learns = torch.is_grad_enabled()
        held_args, held_kwargs = tree_map(lambda leaf: leaf, (args, kwargs))  # lists of the network may grow
        inputs = SeenTensor.all_in((args, kwargs))
        call = TracedCall(name, module, held_args, held_kwargs, self._time, learns, inputs)
        self._alive += [seen.tensor for seen in call.inputs]
        parent = self._stack[-1] if self._stack else None
        self._stack.append(call)
        try:
            result = function(*args, **kwargs)
        finally:
            self._stack.pop()
        self._time += 1
        call.ended, call.result, call.outputs = self._time, result, SeenTensor.all_in(result)
        call.overwrites = any(seen.tensor._version != seen.version for seen in call.inputs)
        call.learns = learns and any(seen.tensor.requires_grad for seen in call.outputs)
        call.read += [(self._time, seen.tensor) for seen in call.outputs]
        for seen in call.outputs:
            self.made_at.setdefault(id(seen.tensor), self._time)
        if parent is None:
            self.root = call
        else:
            parent.children.append(call)
            parent.saved_bytes += call.saved_bytes
        return result


class _Traced:
    """Stands in for the `forward` of a module while a trace is made."""

    def __init__(self, trace: CallTrace, name: str, module: nn.Module) -> None:
        self._trace, self._name, self._module = trace, name, module
        self._forward = module.forward
        self._is_own = "forward" not in vars(module)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._trace.take(self._name, self._module, self._run, args, kwargs)

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        pieces = pieces_of(self._module) if self._is_own else {}
        if not pieces or len(args) != 1 or kwargs or not isinstance(args[0], Tensor):
            return self._forward(*args, **kwargs)
        (x,) = args
        for name, piece in pieces.items():
            x = self._trace.take(f"{self._name}:{name}", self._module, piece, (x,), {})
        return x

    def remove(self) -> None:
        if self._is_own:
            del self._module.forward
        else:
            self._module.forward = self._forward


@contextmanager
def _all_traced(network: nn.Module, trace: CallTrace) -> Iterator[None]:
    stand_ins = [_Traced(trace, name, module) for name, module in network.named_modules()]
    for stand_in in stand_ins:
        stand_in._module.forward = stand_in
    try:
        with trace:
            yield
    finally:
        for stand_in in stand_ins:
            stand_in.remove()


def trace_calls(network: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> CallTrace:
    """Return the record of `network(*args, **kwargs)`. Give it a copy: state that a pass advances is advanced."""
    trace = CallTrace()
    trace.know(network)
    hooks = saved_tensors_hooks(trace.note_saved, lambda tensor: tensor)
    with torch.enable_grad(), _all_traced(network, trace), hooks:
        network(*args, **kwargs)
    return trace


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, Tensor))
