"""The recompute graph of a run of a unit: how each result can be computed again, and what autograd saved of them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, UntypedStorage

from aerofuse.checkpointing.recompute_nodes import PackedTensor, RecomputeNode, View
from aerofuse.checkpointing.saved_tensors import Packed, SavedTensor, hand_over
from aerofuse.checkpointing.snapshot import Autocast, RandomState
from aerofuse.checkpointing.tensors import layout_of, storage_key


def _write_over(func: Callable[..., Tensor], target: Tensor, *args: Any, copying: bool, **keywords: Any) -> Tensor:
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


@dataclass(slots=True)
class _KnownStorage:
    """What is known of a storage while it lives.

    `node` makes it. A call of the unit has made it, or one with a node has read it. What a unit writes over and has not
    made is state of its modules: the next pass writes over it again. `casts` are copies in autocast's precision.
    """

    born: weakref.ref[UntypedStorage]
    node: RecomputeNode | None = None
    is_made: bool = False
    is_read: bool = False
    is_state: bool = False
    casts: dict[Any, Tensor] = field(default_factory=dict)


@dataclass
class _Write:
    """A call that writes over a tensor. `before` is what was there: computed again, or a copy that autograd made."""

    known: set[int]
    size: torch.Size
    dtype: torch.dtype
    before: View | None

    def copies(self, tensor: Tensor) -> bool:
        """Return whether autograd, which saves `tensor` now, has copied for it what will be written over."""
        return (tensor.shape, tensor.dtype) == (self.size, self.dtype) and storage_key(tensor) not in self.known


class RecomputeGraph:
    """Nodes by the storage that they make, for one run of one unit, or of units that are linked.

    With `no_cache`, what is computed on the way to a tensor is not cached for others that need it.
    """

    def __init__(self, inputs: Tensor, autocast: Autocast, no_cache: bool) -> None:
        self._autocast, self._no_cache = autocast, no_cache
        # By storage; its address may be that of another one afterwards.
        self._known: dict[int, _KnownStorage] = {}
        self._know(inputs).is_made = True
        # By what is saved: of two that save the same tensor, one does it for both.
        self._saved: weakref.WeakValueDictionary[Any, SavedTensor] = weakref.WeakValueDictionary()
        # What was saved while the current call ran: it may have been the call's own result.
        self._just_saved: dict[int, list[PackedTensor]] = {}
        self._write: _Write | None = None
        self._saved_nodes: dict[RecomputeNode, None] = {}
        # The storages that autograd saves itself.
        self._wanted = {storage_key(inputs)}
        self._called: dict[RecomputeNode, str] = {}

    def _know(self, tensor: Tensor) -> _KnownStorage:
        key = storage_key(tensor)
        if key not in self._known:
            forget = self._known.pop
            born = weakref.ref(tensor.untyped_storage(), lambda _: forget(key, None))
            self._known[key] = _KnownStorage(born)
        return self._known[key]

    # ----- calls

    def begin_call(self) -> None:
        """What autograd saves from here on may be the result of the call that begins."""
        self._just_saved.clear()

    def register(self, tensor: Tensor) -> bool:
        """Know that a call has made a tensor. Return whether its storage is a new one."""
        known = self._know(tensor)
        is_new = not (known.is_made or known.is_read)
        known.is_made |= is_new
        return is_new

    def casts_of(self, tensor: Tensor) -> dict[Any, Tensor]:
        """Return the copies of a storage in autocast's precision, to be filled; they go with it."""
        known = self._know(tensor)
        known.is_read = True
        return known.casts

    def link(self, inputs: Tensor) -> None:
        """The unit has ended, and the next one begins with its output."""
        if (node := self._node(inputs)) is not None:
            node.links_units = True

    def _node(self, tensor: Tensor) -> RecomputeNode | None:
        """Return what makes the storage of a tensor, unless it has another type."""
        known = self._known.get(storage_key(tensor))
        node = None if known is None else known.node
        return node if node is not None and node.dtype == tensor.dtype else None

    def write(
        self,
        func: Callable[..., Any],
        args: Sequence[Any],
        keywords: Mapping[str, Any],
        output: Tensor,
        random: RandomState | None = None,
    ) -> RecomputeNode:
        """Return the node of `output`, which `func` made of these arguments."""
        references, named = self.refer(list(args)), {key: self.refer(argument) for key, argument in keywords.items()}
        return RecomputeNode(func, references, named, self._autocast, output, random=random, caches=not self._no_cache)

    def begin_write(self, targets: Sequence[Tensor], arguments: Sequence[Tensor], *, known: bool) -> None:
        """A call that writes over `targets` begins. `known`: it saves nothing but arguments, its result and copies."""
        self.begin_call()
        self._write = None
        before = [self._know(target).node for target in targets]
        if known and len(targets) == 1:
            (target,), (node,) = targets, before
            is_whole = node is not None and (node.layout, node.dtype) == (layout_of(target), target.dtype)
            if is_whole or (node is None and target.is_contiguous() and not target._is_view()):
                keys = {storage_key(tensor) for tensor in (target, *arguments)}
                self._write = _Write(keys, target.shape, target.dtype, None if node is None else View(node, target))
        for target in targets:
            entry = self._know(target)
            entry.is_state |= not entry.is_made
            self.forget(target)
            # Nodes that were written down before need what was there before.
            for what, saved in list(self._saved.items()):
                if what[0] == storage_key(target):
                    del self._saved[what]
                    saved.copy()
                    self._saved[_identity(saved.get())] = saved

    @property
    def knows_what_was_there(self) -> bool:
        """Return whether what the current call writes over can be computed again."""
        return self._write is not None and self._write.before is not None

    def end_write(
        self, func: Callable[..., Any], references: Sequence[Any], named: Mapping[str, Any], target: Tensor
    ) -> RecomputeNode | None:
        """Return the node of `target`, over which `func` wrote; its other arguments were referred to before that."""
        write, self._write = self._write, None
        if write is None or write.before is None:
            return None
        function = partial(_write_over, func)
        arguments = [write.before, *references]
        return RecomputeNode(function, arguments, named, self._autocast, target, writes=True, caches=not self._no_cache)

    def remember(self, name: str, output: Tensor, node: RecomputeNode) -> None:
        """`node` makes the storage of `output`, also where the call itself has saved its result."""
        self._know(output).node = node
        self._called[node] = name
        for packed in self._just_saved.pop(storage_key(output), ()):
            packed.replace(node)
            self._saved_nodes[node] = None
            self._wanted.discard(storage_key(output))

    def refer(self, argument: Any) -> Any:
        """Return where an argument comes from."""
        if isinstance(argument, Tensor):
            if (node := self._node(argument)) is not None:
                return View(node, argument)
            known = self._know(argument)
            known.is_read = True
            return View(self._save(argument.clone() if known.is_state else argument), argument)
        if isinstance(argument, (list, tuple)):
            return type(argument)(self.refer(item) for item in argument)
        return argument

    def _save(self, tensor: Tensor) -> SavedTensor:
        what = _identity(tensor)
        saved = self._saved.get(what)
        if saved is None:
            saved = self._saved[what] = SavedTensor(tensor)
        return saved

    def forget(self, tensor: Tensor) -> None:
        """A call writes over `tensor`. Who needs what was there will find that it is not there."""
        known = self._know(tensor)
        if known.node is not None:
            known.node.value = None
        known.node = None

    # ----- saved tensors

    def pack(self, tensor: Tensor) -> Packed:
        """Return what autograd saves of a tensor: how to make it, where there is a node."""
        write = self._write if self._write is not None and self._write.copies(tensor) else None
        view = None if write is None else write.before
        if view is None:
            view = View((None if write else self._node(tensor)) or self._save(tensor), tensor)
            if write is not None:
                write.before = view
        packed = PackedTensor(view)
        if isinstance(view.source, RecomputeNode):
            self._saved_nodes[view.source] = None
        else:
            self._wanted.add(storage_key(tensor))
            self._just_saved.setdefault(storage_key(tensor), []).append(packed)
        return hand_over(packed, tensor)

    def calls(self, output: Tensor) -> list[Call]:
        """Return the calls so far whose results have nodes."""
        last = self._node(output)
        return [
            Call(
                name,
                node.num_bytes,
                tuple(self._called[source] for source in node.nodes()),
                node in self._saved_nodes,
                node is last,
            )
            for node, name in self._called.items()
        ]

    def settle(self, output: Tensor | None, *, cheap_only: bool) -> None:
        """The unit has ended: free what is not needed, and give the rest to the hooks of the user, each tensor once.

        With `cheap_only`, nodes have their values still, and one is saved where that frees more.
        """
        if output is not None:
            # The next unit saves it, so it need not be computed again.
            self._wanted.add(storage_key(output))
            if (node := self._node(output)) is not None:
                node.save(self._save(output.detach().as_strided(*node.layout)))
        if cheap_only:
            self._save_instead_of_larger()
        for node in self._called:
            node.value = None
        for node in self._saved_nodes:
            node.require()
        self._known.clear()
        self._called.clear()
        self._just_saved.clear()
        self._saved_nodes.clear()
        for saved in list(self._saved.values()):
            saved.offer()
        self._saved.clear()

    def _save_instead_of_larger(self) -> None:
        """Save a tensor rather than recompute it, where that alone would save something at least as large.

        An attention's softmax is an example: autograd wants its result, and nobody but its node the scores.
        """
        for key in dict.fromkeys(what[0] for what in list(self._saved)):
            known = self._known.get(key)
            storage = known.born() if known is not None and known.is_made and key not in self._wanted else None
            if storage is None:
                continue
            saved = [one for what, one in self._saved.items() if what[0] == key]
            users = [node for node in self._saved_nodes if node.depends_on(saved)]
            if not users or (value := users[0].value) is None:
                continue
            first, *others = users
            if first.num_bytes <= storage.nbytes() and not any(node.depends_on(saved, unless=first) for node in others):
                first.save(self._save(value))


def _identity(tensor: Tensor) -> tuple[Any, ...]:
    """Return what is equal for tensors that hold the same, as long as they live."""
    return storage_key(tensor), *layout_of(tensor), tensor.dtype, tensor._version
