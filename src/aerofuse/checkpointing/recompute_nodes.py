"""The nodes of a recompute graph: how to compute a tensor from saved ones and from those of other nodes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from torch import Tensor

from aerofuse.checkpointing.saved_tensors import SavedTensor, refuse_second_derivatives
from aerofuse.checkpointing.snapshot import Autocast, RandomState
from aerofuse.checkpointing.tensors import layout_of


class RecomputeNode:
    """How one storage is computed, and for as long as it is worth it, its value.

    - `writes`: the function writes over its first argument, or over a copy where it is told to be `copying`.
    - `caches`: a value that was computed on the way to another is cached for whoever wants it later.
    - `links_units`: it is the input of a unit that is linked to the one before. It is cached while its own unit wants
      it, and not while those of later units are computed from it; nor do its own sources wait for it.
    - `waiting`: saved tensors that want its value and have not been asked for yet, and nodes to be computed from it.
    """

    __slots__ = (
        "_arguments",
        "_caches",
        "_keywords",
        "_random",
        "_required",
        "_saved",
        "_writes",
        "autocast",
        "dtype",
        "function",
        "layout",
        "links_units",
        "num_bytes",
        "value",
        "waiting",
    )

    def __init__(
        self,
        function: Callable[..., Tensor],
        arguments: Sequence[Any],
        keywords: Mapping[str, Any],
        autocast: Autocast,
        result: Tensor,
        *,
        random: RandomState | None = None,
        writes: bool = False,
        caches: bool = True,
    ) -> None:
        self.function = function
        self._arguments, self._keywords = arguments, keywords
        self.autocast, self._random = autocast, random
        self._writes, self._caches = writes, caches
        self.layout, self.dtype = layout_of(result), result.dtype
        self.num_bytes = result.untyped_storage().nbytes()
        self.links_units = False
        self.waiting = 0
        self._required = False
        self.value: Tensor | None = None
        self._saved: SavedTensor | None = None

    def save(self, saved: SavedTensor) -> None:
        """Save the value, with its whole layout, and forget how it was made."""
        self._saved = saved
        self._arguments, self._keywords, self._random = (), {}, None

    def get(self, *, for_autograd: bool = False, passing: bool = False) -> Tensor:
        """Return the value. `passing`: on the way to the input of a later unit, so that nothing is cached or freed."""
        if self._saved is not None:
            return self._saved.get()
        if self.value is not None:
            return self.value
        on_the_way = passing or self.links_units
        arguments = [_resolved(argument, passing=on_the_way) for argument in self._arguments]
        keywords = {name: _resolved(argument, passing=on_the_way) for name, argument in self._keywords.items()}
        if self._writes:
            keywords["copying"] = self._must_spare(self._arguments[0], passing=on_the_way)
        with nullcontext() if self._random is None else self._random.replayed():
            value = self.function(*arguments, **keywords)
        if passing:
            return value
        if self._required:
            self._required = False
            for node in self.nodes():
                node.release()
        if self.waiting and (self._caches or self.links_units or for_autograd):
            self.value = value
        return value

    def _must_spare(self, target: View, *, passing: bool) -> bool:
        """Return whether somebody else may read what the function is about to change."""
        node = target.source
        if isinstance(node, SavedTensor) or node._saved is not None:
            return True
        return node.value is not None and (passing or node.waiting > self._required)

    def require(self) -> None:
        """Let the nodes that this one is computed from cache their values until it is."""
        if self._saved is not None or self._required or not self._caches or self.links_units:
            return
        self._required = True
        for node in self.nodes():
            if node._saved is None:
                node.waiting += 1
                node.require()

    def depends_on(self, storage: Collection[SavedTensor], *, unless: RecomputeNode | None = None) -> bool:
        """Return whether it is computed from one of these, other than through another node."""
        if self is unless or self._saved is not None:
            return False
        return any(
            source in storage if isinstance(source, SavedTensor) else source.depends_on(storage, unless=unless)
            for source in self._sources()
        )

    def release(self) -> None:
        """One that waited for the value has had it."""
        self.waiting -= 1
        if not self.waiting:
            self.value = None

    def nodes(self) -> Iterator[RecomputeNode]:
        """Yield the nodes that it is computed from."""
        return (source for source in self._sources() if isinstance(source, RecomputeNode))

    def _sources(self) -> Iterator[RecomputeNode | SavedTensor]:
        for argument in (*self._arguments, *self._keywords.values()):
            for item in argument if isinstance(argument, (list, tuple)) else (argument,):
                if isinstance(item, View):
                    yield item.source


class View:
    """A tensor as a call has got it: saved, or over the storage of a node."""

    __slots__ = ("_layout", "_requires_grad", "source")

    def __init__(self, source: RecomputeNode | SavedTensor, tensor: Tensor) -> None:
        self.source = source
        self._layout, self._requires_grad = layout_of(tensor), tensor.requires_grad

    def get(self, *, for_autograd: bool = False, passing: bool = False) -> Tensor:
        """Return the tensor; see `RecomputeNode.get`."""
        if isinstance(self.source, SavedTensor):
            return self.source.get()
        base = self.source.get(for_autograd=for_autograd, passing=passing)
        return base if self._layout == layout_of(base) else base.as_strided(*self._layout)

    def as_argument(self, *, passing: bool = False) -> Tensor:
        """Return the tensor for a call. A matrix product takes another kernel for a factor that requires a gradient."""
        tensor = self.get(passing=passing)
        same = tensor.requires_grad == self._requires_grad
        return tensor if same else tensor.detach().requires_grad_(self._requires_grad)


def _resolved(argument: Any, *, passing: bool) -> Any:
    """Return an argument of a call that is made again."""
    if isinstance(argument, View):
        return argument.as_argument(passing=passing)
    if isinstance(argument, (list, tuple)):
        return type(argument)(_resolved(item, passing=passing) for item in argument)
    return argument


class PackedTensor:
    """What autograd holds in the place of a tensor that a unit saves; see `Packed`."""

    __slots__ = ("_is_taken", "_view")

    def __init__(self, view: View) -> None:
        self._view = view
        self._is_taken = False
        if isinstance(view.source, RecomputeNode):
            view.source.waiting += 1

    def replace(self, node: RecomputeNode) -> None:
        """A node has been found for what was to be saved."""
        self._view.source = node
        node.waiting += 1

    def unpack(self) -> Tensor:
        """Return the tensor. Raises `RuntimeError` where it has changed, or for second derivatives."""
        refuse_second_derivatives()
        node = self._view.source
        if isinstance(node, SavedTensor):
            return node.get()
        with node.autocast.restored(cache=False):
            tensor = self._view.get(for_autograd=True)
        if not self._is_taken:
            self._is_taken = True
            node.release()
        return tensor
