"""The arguments of a call, held so that the call can be made again with another tensor in the place of one of them."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from aerofuse.checkpointing.recompute_nodes import View
from aerofuse.checkpointing.saved_tensors import SavedTensor
from aerofuse.checkpointing.snapshot import Autocast, RandomState
from aerofuse.checkpointing.tensors import Layout, layout_of, storage_key, tensors_in
from aerofuse.memory.torch_private import tree_flatten, tree_unflatten

# A call of a module or of a piece of it, with its arguments.
ModuleCall = partial[Any]


def arguments_of(call: ModuleCall) -> list[Tensor]:
    """Return the tensors among the arguments of a call."""
    return tensors_in((call.args, call.keywords) if call.keywords else call.args)


@dataclass(frozen=True)
class Flow:
    """What flows into a call: the how manieth result of the call before, and as what view where it is another one."""

    number: int = 0
    layout: Layout | None = None

    def pick(self, results: Any) -> Tensor:
        """Return it from the results of the call before."""
        tensor = tensors_in(results)[self.number]
        return tensor if self.layout is None else tensor.as_strided(*self.layout)


class Returned:
    """A result of a call, without keeping it alive, as it was then."""

    def __init__(self, number: int, tensor: Tensor) -> None:
        self.tensor = weakref.ref(tensor)
        self._storage = weakref.ref(tensor.untyped_storage())
        self._number, self._dtype, self._version = number, tensor.dtype, tensor._version

    def flow_into(self, tensor: Tensor) -> Flow | None:
        """Return what flows where `tensor` is this one or another view of it, unless somebody has written to it."""
        is_over = self._storage() is tensor.untyped_storage()
        if not is_over or (self._dtype, self._version) != (tensor.dtype, tensor._version):
            return None
        return Flow(self._number, None if self.tensor() is tensor else layout_of(tensor))


class HeldCall:
    """A call that can be made again from `x`, the tensor that flows into it."""

    def __init__(self, call: ModuleCall, x: Tensor, flow: Flow) -> None:
        self._function, self.flow = call.func, flow
        self._autocast, self._random = Autocast.capture(x.device), RandomState.capture(x.device)
        leaves, self._tree = tree_flatten((call.args, call.keywords))
        self._leaves = [_held(leaf, x) for leaf in leaves]

    def offer(self) -> None:
        """Give the side inputs to the user's hooks on saved tensors, if there are any."""
        for leaf in self._leaves:
            if isinstance(leaf, View) and isinstance(leaf.source, SavedTensor):
                leaf.source.offer()

    def run(self, x: Tensor) -> Any:
        """Make the call again, with the random numbers and casts that it had."""
        args, kwargs = tree_unflatten([_filled(leaf, x) for leaf in self._leaves], self._tree)
        self._random.restore()
        with self._autocast.restored(cache=True):
            return self._function(*args, **kwargs)


def _held(leaf: Any, x: Tensor) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    if leaf is x:
        return Flow()
    if storage_key(leaf) == storage_key(x) and leaf.dtype == x.dtype:
        return Flow(layout=layout_of(leaf))
    return View(SavedTensor(leaf), leaf)


def _filled(leaf: Any, x: Tensor) -> Any:
    if isinstance(leaf, Flow):
        return leaf.pick(x)
    return leaf.as_argument() if isinstance(leaf, View) else leaf
