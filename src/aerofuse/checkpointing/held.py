"""The arguments of a call, held so that the call can be made again with another tensor in the place of one of them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from aerofuse.checkpointing.recompute import Offered
from aerofuse.checkpointing.recompute_nodes import Layout, layout_of, storage_key
from aerofuse.checkpointing.snapshot import Autocast, RandomState
from aerofuse.memory.torch_private import tree_flatten, tree_unflatten

Function = Callable[..., Any]


def tensors_in(tree: Any) -> list[Tensor]:
    """Return the tensors among arguments or results."""
    return [leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, Tensor)]


@dataclass(frozen=True)
class ModuleCall:
    """A call of a module, or of a piece of it."""

    function: Function
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def run(self) -> Any:
        """Make it."""
        return self.function(*self.args, **self.kwargs)

    def tensors(self) -> list[Tensor]:
        """Return the tensors among its arguments."""
        return tensors_in((self.args, dict(self.kwargs)))


@dataclass(frozen=True)
class Returned:
    """A tensor that a call has returned, without keeping it alive, as it was then."""

    tensor: weakref.ref[Tensor]
    storage: weakref.ref[Any]
    dtype: Any
    version: int

    @classmethod
    def of(cls, tensor: Tensor) -> Returned:
        """Return what is remembered of `tensor`."""
        return cls(weakref.ref(tensor), weakref.ref(tensor.untyped_storage()), tensor.dtype, tensor._version)

    def flows_into(self, tensor: Tensor) -> bool:
        """Return whether `tensor` is this one or another view of it, and nobody has written to it in between."""
        return (
            self.storage() is tensor.untyped_storage()
            and self.dtype == tensor.dtype
            and self.version == tensor._version
        )


class _FlowPlace:
    """The place of the tensor that flows into a call, or of another view of it."""

    def __init__(self, layout: Layout | None) -> None:
        self._layout = layout

    def get(self, x: Tensor) -> Tensor:
        return x if self._layout is None else x.as_strided(*self._layout)


class _SideInput:
    """Another tensor among the arguments: held as it is."""

    def __init__(self, tensor: Tensor) -> None:
        self._is_leaf = isinstance(tensor, nn.Parameter)
        self._requires_grad = tensor.requires_grad
        self.offered = Offered(tensor if self._is_leaf else tensor.detach())

    def get(self, _: Tensor) -> Tensor:
        tensor = self.offered.get()
        return tensor if self._is_leaf else tensor.detach().requires_grad_(self._requires_grad)


class HeldCall:
    """A call that can be made again from `x`, the tensor that flows into it.

    `output` says which of the results of the call before `x` is, and as what view; it is for who makes that call again.
    """

    def __init__(self, name: str, call: ModuleCall, x: Tensor, source: tuple[int, Layout | None] | None) -> None:
        self.name, self._function, self.source = name, call.function, source
        self._autocast, self._random = Autocast.capture(x.device), RandomState.capture(x.device)
        leaves, self._tree = tree_flatten((call.args, dict(call.kwargs)))
        self._leaves = [_held(leaf, x) for leaf in leaves]

    def offer(self) -> None:
        """Give the side inputs to the user's hooks on saved tensors, if there are any."""
        for leaf in self._leaves:
            if isinstance(leaf, _SideInput):
                leaf.offered.offer()

    def run(self, x: Tensor) -> Any:
        """Make the call again, with the random numbers and casts that it had."""
        args, kwargs = tree_unflatten(
            [leaf.get(x) if isinstance(leaf, (_FlowPlace, _SideInput)) else leaf for leaf in self._leaves], self._tree
        )
        self._random.restore()
        with self._autocast.restored(cache=True):
            return self._function(*args, **kwargs)

    def pick(self, results: Any) -> Tensor:
        """Return the tensor that flows into this call, from the results of the call before."""
        assert self.source is not None
        number, layout = self.source
        return _FlowPlace(layout).get(tensors_in(results)[number])


def _held(leaf: Any, x: Tensor) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    if leaf is x:
        return _FlowPlace(None)
    if storage_key(leaf) == storage_key(x) and leaf.dtype == x.dtype:
        return _FlowPlace(layout_of(leaf))
    return _SideInput(leaf)
