"""The nodes of a recompute graph: a saved tensor, or how to compute one from others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from aerofuse.checkpointing.recompute import Offered, refuse_second_derivatives
from aerofuse.checkpointing.snapshot import Autocast, RandomState

# Size, stride and offset.
Layout = tuple[torch.Size, tuple[int, ...], int]


class SavedTensor:
    """A tensor that is saved as it is."""

    __slots__ = ("__weakref__", "key", "offered", "requires_grad", "tensor")

    def __init__(self, tensor: Tensor) -> None:
        self.requires_grad = tensor.requires_grad
        # Detached: a graph that holds its own outputs is never freed.
        self.tensor: Tensor | None = tensor.detach()
        self.key = storage_key(tensor)
        self.offered = Offered(self.tensor)

    def copy(self) -> None:
        """Save a copy instead: the tensor is about to be written over."""
        self.tensor = self.get().clone()
        self.offered = Offered(self.tensor)

    def settle(self, offered: Offered) -> None:
        """The unit has ended; `offered` is this tensor, where it may be elsewhere by now."""
        self.offered, self.tensor = offered, None

    def get(self) -> Tensor:
        return self.offered.get()


class RecomputeNode:
    """How one storage is computed, and for as long as it is worth it, its value."""

    __slots__ = (
        "_required",
        "arguments",
        "autocast",
        "caches",
        "dtype",
        "function",
        "in_place",
        "keywords",
        "layout",
        "links_units",
        "num_bytes",
        "offered",
        "random",
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
        random: RandomState | None = None,
        in_place: bool = False,
        caches: bool = True,
    ) -> None:
        self.function = function
        self.arguments: Sequence[Any] = arguments
        self.keywords: Mapping[str, Any] = keywords
        self.autocast = autocast
        self.random = random
        # The function writes over its first argument, or over a copy where it is told to be `copying`.
        self.in_place = in_place
        # Whether a value that was computed on the way to another is cached for whoever wants it later.
        self.caches = caches
        # The input of a unit that is linked to the one before. It is cached while its own unit wants it, and not while
        # those of later units are computed from it; nor do its own sources wait for it.
        self.links_units = False
        self.value: Tensor | None = None
        self.offered: Offered | None = None
        self.layout, self.dtype = layout_of(result), result.dtype
        self.num_bytes = result.untyped_storage().nbytes()
        # Saved tensors that want this value and have not been asked for yet, and nodes to be computed from it.
        self.waiting = 0
        self._required = False

    def save(self, tensor: Tensor) -> None:
        """Save the value, over whose storage `tensor` is, and forget how it was made."""
        self.value = tensor.detach().as_strided(*self.layout)
        self.arguments, self.keywords, self.random = (), {}, None

    @property
    def is_saved(self) -> bool:
        return (self.value is not None or self.offered is not None) and not self.arguments

    def offer(self) -> None:
        """Give a saved value to the hooks of the user."""
        if self.is_saved and self.value is not None:
            self.offered, self.value = Offered(self.value), None
            self.offered.offer()

    def get(self, *, for_autograd: bool = False, passing: bool = False) -> Tensor:
        """Return the value. `passing`: on the way to the input of a later unit, so that nothing is cached or freed."""
        if self.value is not None:
            return self.value
        if self.offered is not None:
            return self.offered.get()
        arguments = [resolve(argument, passing=passing or self.links_units) for argument in self.arguments]
        keywords = {
            name: resolve(argument, passing=passing or self.links_units) for name, argument in self.keywords.items()
        }
        if self.in_place:
            target = self.arguments[0].source
            wanted = passing or self.links_units or target.is_saved or target.waiting > self._required
            # Somebody else may read what the function is about to change.
            keywords["copying"] = (target.value is not None or target.is_saved) and wanted
        if self.random is None:
            value = self.function(*arguments, **keywords)
        else:
            with self.random.replayed():
                value = self.function(*arguments, **keywords)
        if passing:
            return value
        if self._required:
            self._required = False
            for source in self.sources():
                if isinstance(source, RecomputeNode):
                    source.release()
        if self.waiting and (self.caches or self.links_units or for_autograd):
            self.value = value
        return value

    def require(self) -> None:
        """Let the nodes that this one is computed from cache their values until it is."""
        if self.is_saved or self._required or not self.caches or self.links_units:
            return
        self._required = True
        for source in self.sources():
            if isinstance(source, RecomputeNode) and not source.is_saved:
                source.waiting += 1
                source.require()

    def release(self) -> None:
        """One that waited for the value has had it."""
        if self.is_saved:
            return
        self.waiting -= 1
        if not self.waiting:
            self.value = None

    def sources(self) -> Iterator[SavedTensor | RecomputeNode]:
        for argument in (*self.arguments, *self.keywords.values()):
            for item in argument if isinstance(argument, (list, tuple)) else (argument,):
                if isinstance(item, View):
                    yield item.source
                elif isinstance(item, SavedTensor):
                    yield item


class View:
    """A tensor over the storage of a node."""

    __slots__ = ("layout", "requires_grad", "source")

    def __init__(self, source: RecomputeNode, tensor: Tensor) -> None:
        self.source = source
        self.requires_grad = tensor.requires_grad
        self.layout = layout_of(tensor)

    def get(self, *, for_autograd: bool = False, passing: bool = False) -> Tensor:
        base = self.source.get(for_autograd=for_autograd, passing=passing)
        if self.layout == layout_of(base):
            return base
        return base.as_strided(*self.layout)


def resolve(argument: Any, *, passing: bool) -> Any:
    """Return an argument of a call that is made again."""
    if isinstance(argument, (SavedTensor, View)):
        tensor = argument.get() if isinstance(argument, SavedTensor) else argument.get(passing=passing)
        # A matrix product takes another kernel, with other last bits, for a factor that requires a gradient.
        same = tensor.requires_grad == argument.requires_grad
        return tensor if same else tensor.detach().requires_grad_(argument.requires_grad)
    if isinstance(argument, (list, tuple)):
        return type(argument)(resolve(item, passing=passing) for item in argument)
    return argument


class PackedTensor:
    """What autograd saves in place of a tensor."""

    __slots__ = ("content", "taken")

    def __init__(self, content: SavedTensor | View) -> None:
        self.content = content
        self.taken = False
        if isinstance(content, View):
            content.source.waiting += 1

    def replace(self, node: RecomputeNode) -> None:
        """A node has been found for what was to be saved."""
        assert isinstance(self.content, SavedTensor)
        assert self.content.tensor is not None
        self.content = View(node, self.content.tensor)
        node.waiting += 1


def storage_key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def depends_on(node: RecomputeNode, root: int, unless: RecomputeNode | None = None) -> bool:
    """Return whether computing `node` reads the storage `root`, other than through `unless`."""
    if node is unless:
        return False
    for source in node.sources():
        if isinstance(source, SavedTensor):
            if source.key == root:
                return True
        elif depends_on(source, root, unless):
            return True
    return False


def unpack(saved: PackedTensor) -> Tensor:
    """Return the tensor that autograd saved. Raises `RuntimeError` where it has changed, or for second derivatives."""
    refuse_second_derivatives()
    content = saved.content
    if isinstance(content, SavedTensor):
        return content.get()
    node = content.source
    with node.autocast.restored(cache=False):
        tensor = content.get(for_autograd=True)
    if not saved.taken:
        saved.taken = True
        node.release()
    return tensor


def layout_of(tensor: Tensor) -> Layout:
    """Return where in its storage the tensor is."""
    return tensor.size(), tensor.stride(), int(tensor.storage_offset())
