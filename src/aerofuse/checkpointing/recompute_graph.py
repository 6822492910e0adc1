"""The recompute graph of a run of a unit: how each result can be computed again, and what autograd saved of them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, UntypedStorage

from aerofuse.checkpointing.recompute import Offered, hand_over, hooks_of_user
from aerofuse.checkpointing.recompute_nodes import (
    PackedTensor,
    RecomputeNode,
    SavedTensor,
    View,
    depends_on,
    layout_of,
    storage_key,
    unpack,
)
from aerofuse.checkpointing.snapshot import Autocast, RandomState


def _write_over(func: Callable[..., Tensor], target: Tensor, *args: Any, copying: bool, **keywords: Any) -> Tensor:
    """`func` in place on `target`, or where it is `copying` on a copy, which belongs to what that takes."""
    return func(target.clone() if copying else target, *args, **keywords)


@dataclass(frozen=True)
class Call:
    """One call inside a unit whose result could be computed again.

    `sources` are the calls whose results it reads; `saved` says whether autograd wants the result, `is_output`
    whether it is what the unit returns.
    """

    name: str
    num_bytes: int
    sources: tuple[str, ...]
    saved: bool
    is_output: bool


@dataclass
class _Write:
    """A call that writes over a tensor. `before` is how to compute what was there, `copy` a copy that autograd made."""

    known: set[int]
    size: torch.Size
    dtype: torch.dtype
    before: View | None
    copy: SavedTensor | None = None

    def copies(self, tensor: Tensor) -> bool:
        """Return whether autograd, which saves `tensor` now, has copied for it what will be written over."""
        return (tensor.shape, tensor.dtype) == (self.size, self.dtype) and storage_key(tensor) not in self.known


class RecomputeGraph:
    """Nodes by the storage that they make, for one run of one unit, or of units that are linked.

    With `no_cache`, what is computed on the way to a tensor is not cached for others that need it.
    """

    def __init__(self, inputs: Tensor, autocast: Autocast, no_cache: bool) -> None:
        self._autocast = autocast
        self._no_cache = no_cache
        # By storage, for as long as it lives; its address may be that of another one afterwards.
        self._alive: dict[int, weakref.ref[UntypedStorage]] = {}
        self._nodes: dict[int, RecomputeNode] = {}
        self._references: dict[int, list[SavedTensor]] = {}
        self._lower: dict[int, dict[tuple[Any, ...], Tensor]] = {}
        self._saved: set[int] = set()
        # What was saved while the current call ran: it may have been the call's own result.
        self._just_saved: dict[int, list[PackedTensor]] = {}
        self._write: _Write | None = None
        self._all_saved: list[weakref.ref[SavedTensor]] = []
        self._input_key = storage_key(inputs)
        # What a unit writes over and has not made is state of its modules: the next pass writes over it again.
        self._state: set[int] = set()
        self._saved_nodes: dict[RecomputeNode, None] = {}
        self._called: dict[RecomputeNode, str] = {}

    # ----- calls

    def begin_call(self) -> None:
        """What autograd saves from here on may be the result of the call that begins."""
        self._just_saved.clear()

    def register(self, tensor: Tensor) -> bool:
        """Know the storage from now on; whether it is a new one."""
        storage = tensor.untyped_storage()
        key = storage_key(tensor)
        if key in self._alive or key in self._references:
            return False
        self._alive[key] = weakref.ref(storage, partial(self._forget, key))
        return True

    def _forget(self, key: int, _reference: weakref.ref[UntypedStorage]) -> None:
        self._alive.pop(key, None)
        self._nodes.pop(key, None)
        self._lower.pop(key, None)
        self._saved.discard(key)

    def lower_precision_of(self, tensor: Tensor) -> dict[tuple[Any, ...], Tensor]:
        """Copies of a storage in autocast's precision, to be filled; they go with it."""
        self.register(tensor)
        return self._lower.setdefault(storage_key(tensor), {})

    def find(self, tensor: Tensor) -> RecomputeNode | None:
        """Return the node of a tensor's storage."""
        return self._nodes.get(storage_key(tensor))

    def write(
        self,
        func: Callable[..., Any],
        args: Sequence[Any],
        keywords: Mapping[str, Any],
        output: Tensor,
        random: RandomState | None = None,
    ) -> RecomputeNode:
        """Return the node of `output`, which `func` made of these arguments."""
        references = [self.refer(argument) for argument in args]
        named = {key: self.refer(argument) for key, argument in keywords.items()}
        return RecomputeNode(func, references, named, self._autocast, output, random, caches=not self._no_cache)

    def begin_write(self, targets: Sequence[Tensor], arguments: Sequence[Tensor], *, known: bool) -> None:
        """A call that writes over `targets` begins. `known`: it saves nothing but arguments, its result and copies."""
        self.begin_call()
        self._write = None
        nodes = [self._nodes.pop(storage_key(target), None) for target in targets]
        if known and len(targets) == 1:
            (target,), (node,) = targets, nodes
            whole = node is not None and node.layout == layout_of(target) and node.dtype == target.dtype
            if whole or (node is None and target.is_contiguous() and not target._is_view()):
                keys = {storage_key(tensor) for tensor in (target, *arguments)}
                self._write = _Write(keys, target.shape, target.dtype, View(node, target) if node else None)
        for target, node in zip(targets, nodes, strict=True):
            key = storage_key(target)
            if node is None and key not in self._alive and key != self._input_key:
                self._state.add(key)
            self._protect_readers(target)
            if node is not None:
                node.value = None

    @property
    def knows_what_was_there(self) -> bool:
        """Return whether what the current call writes over can be computed again."""
        return self._write is not None and self._write.before is not None

    def end_write(
        self, func: Callable[..., Any], references: Sequence[Any], named: Mapping[str, Any], target: Tensor
    ) -> RecomputeNode | None:
        """Return the node of `target`, over which `func` wrote; its other arguments were referred to before that."""
        write, self._write = self._write, None
        source = write and (write.before or write.copy)
        if source is None:
            return None
        function = partial(_write_over, func)
        if isinstance(source, SavedTensor):
            named = {**named, "copying": True}
        return RecomputeNode(
            function,
            [source, *references],
            named,
            self._autocast,
            target,
            in_place=isinstance(source, View),
            caches=not self._no_cache,
        )

    def remember(self, name: str, output: Tensor, node: RecomputeNode) -> None:
        """`node` makes the storage of `output`, also where the call itself has saved its result."""
        key = storage_key(output)
        self._nodes[key] = node
        self._called[node] = name
        for saved in self._just_saved.pop(key, ()):
            saved.replace(node)
            self._saved_nodes[node] = None
            self._saved.discard(key)

    def refer(self, argument: Any) -> Any:
        """Return where an argument comes from."""
        if isinstance(argument, Tensor):
            key = storage_key(argument)
            node = self._nodes.get(key)
            if node is not None and node.dtype == argument.dtype:
                return View(node, argument)
            saved = self._save(argument.clone() if key in self._state else argument)
            self._references.setdefault(key, []).append(saved)
            return saved
        if isinstance(argument, (list, tuple)):
            return type(argument)(self.refer(item) for item in argument)
        return argument

    def _save(self, tensor: Tensor) -> SavedTensor:
        saved = SavedTensor(tensor)
        self._all_saved.append(weakref.ref(saved))
        return saved

    def forget(self, tensor: Tensor) -> None:
        """A call has written over `tensor` unasked. Who needs what was there will find that it is not there."""
        node = self._nodes.pop(storage_key(tensor), None)
        if node is not None:
            node.value = None

    def _protect_readers(self, target: Tensor) -> None:
        """Nodes that were written down before `target` is written over need what was there before."""
        for saved in self._references.pop(storage_key(target), ()):
            saved.copy()

    # ----- saved tensors

    def pack(self, tensor: Tensor) -> Any:
        """Return what autograd saves of a tensor: how to make it, where there is a node."""
        key = storage_key(tensor)
        view: View | None = None
        copied = self._write is not None and self._write.copies(tensor)
        if copied and self._write is not None and self._write.before is not None:
            view = self._write.before
        elif (node := self._nodes.get(key)) is not None and node.dtype == tensor.dtype:
            view = View(node, tensor)
        if view is not None:
            saved = PackedTensor(view)
            self._saved_nodes[view.source] = None
        else:
            content = self._save(tensor)
            if copied and self._write is not None:
                self._write.copy = content
            saved = PackedTensor(content)
            self._saved.add(key)
            self._just_saved.setdefault(key, []).append(saved)
        return hand_over(saved, unpack, tensor)

    def calls(self, output: Tensor) -> list[Call]:
        """Return the calls so far whose results have nodes."""
        last = self._nodes.get(storage_key(output))
        return [
            Call(
                name,
                node.num_bytes,
                tuple(self._called[source] for source in node.sources() if isinstance(source, RecomputeNode)),
                node in self._saved_nodes,
                node is last,
            )
            for node, name in self._called.items()
        ]

    def settle(self, output: Tensor | None, cheap_only: bool) -> None:
        """The unit has ended: choose what is saved, free the rest.

        With `cheap_only`, nodes have their values still, and one is saved where that frees more.
        """
        self._lower.clear()
        saved = {*self._saved, self._input_key}
        if output is not None:
            # The next unit saves it, so it need not be computed again.
            key = storage_key(output)
            saved.add(key)
            node = self._nodes.get(key)
            if node is not None and node.dtype == output.dtype:
                node.save(output)
        if cheap_only:
            self._save_instead_of_larger(saved)
        for node in self._called:
            if not node.is_saved:
                node.value = None
        for node in self._saved_nodes:
            node.require()
        self._alive.clear()
        self._nodes.clear()
        self._called.clear()
        self._references.clear()
        self._just_saved.clear()

    def offer(self) -> None:
        """After `settle`: give what is still saved to the hooks of the user, each tensor once."""
        if hooks_of_user() is not None:
            for saved_node in self._saved_nodes:
                saved_node.offer()
        self._saved_nodes.clear()
        offered: dict[tuple[Any, ...], Offered] = {}
        for born in self._all_saved:
            saved = born()
            if saved is not None and saved.tensor is not None:
                key = (saved.key, *layout_of(saved.tensor), saved.tensor._version)
                if key not in offered:
                    offered[key] = saved.offered
                    saved.offered.offer()
                saved.settle(offered[key])

    def _save_instead_of_larger(self, saved: set[int]) -> None:
        """Save a tensor rather than recompute it, where that alone would save something at least as large.

        An attention's softmax is an example: autograd wants its result, and nobody but its node the scores.
        """
        sizes = {key: storage.nbytes() for key, born in self._alive.items() if (storage := born()) is not None}
        for root in [key for key in self._references if key in sizes and key not in saved]:
            users = [node for node in self._saved_nodes if depends_on(node, root)]
            if not users or users[0].value is None:
                continue
            first = users[0]
            if first.num_bytes <= sizes[root] and all(not depends_on(node, root, unless=first) for node in users[1:]):
                first.save(users[0].value)
