"""What a range of units reads besides its input: parameters, buffers and random generators of its modules.

A second run must find all of them as the first one did, and leave them as the first one left them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from aerofuse.checkpointing.operations import LOOKED_THROUGH, REPEATABLE, written_over
from aerofuse.checkpointing.snapshot import running_statistics
from aerofuse.checkpointing.tensors import storage_key
from aerofuse.memory.fake import tensors_of
from aerofuse.memory.torch_private import is_share

# They write over none of their arguments, unless they are told to.
_READ_ONLY = REPEATABLE | LOOKED_THROUGH | {"__getitem__", "index_select"}


class ModuleTensors:
    """The tensors of some modules at the start of a run, what the run reads of them, and what it writes over.

    Running statistics that normalisation layers update in training mode are not watched: nothing reads them then.
    `functional_call` puts other tensors into the modules for the length of a run; the second one gets the same.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._modules = list(dict.fromkeys(modules))
        self._entries: list[tuple[dict[str, Any], str, Tensor | None]] = [
            (registry, name, tensor)
            for module in self._modules
            for registry in (module._parameters, module._buffers)
            for name, tensor in registry.items()
            if tensor is None or not is_share(tensor)  # whoever shards them puts whole ones in their place, both times
        ]
        learning = (module for module in self._modules if module.training)
        self._statistics = {id(buffer) for buffer in running_statistics(learning)}
        self._watched: dict[int, list[Tensor]] = {}
        for _registry, _name, tensor in self._entries:
            if tensor is not None and id(tensor) not in self._statistics:
                self._watched.setdefault(storage_key(tensor), []).append(tensor)
        generators = _with_subclasses(torch.Generator)
        self._generators = [
            (value, value.get_state())
            for module in self._modules
            if not generators.isdisjoint(map(type, vars(module).values()))  # fast, for it is asked for every range
            for value in vars(module).values()
            if isinstance(value, torch.Generator)
        ]
        # What the run reads, and its version.
        self._read: dict[int, tuple[Tensor, int]] = {}
        # What was there before the run wrote over it, by the tensor.
        self._before: dict[int, Tensor] = {}
        self._written: set[int] = set()
        self._perhaps_written: list[tuple[Tensor, Tensor, int]] = []

    def watch(self, func: Callable[..., Any], args: Sequence[Any], keywords: Mapping[str, Any]) -> None:
        """Note what a call of the first run is about to read and to write over."""
        touched: list[tuple[Tensor, Tensor]] = []
        for tensor in tensors_of((*args, *keywords.values())):
            watched = self._watched.get(storage_key(tensor), ())
            if watched or (tensor.is_leaf and tensor.requires_grad):
                self._read.setdefault(id(tensor), (tensor, tensor._version))
            touched += [(held, tensor) for held in watched]
        if not touched:  # most often
            return
        told = [id(target) for target in written_over(func, args, keywords)]
        is_read_only = bool(told) or getattr(func, "__name__", "") in _READ_ONLY
        for held, tensor in touched:
            if id(tensor) in told or not (is_read_only or isinstance(held, nn.Parameter)):
                self._perhaps_written.append((held, tensor, tensor._version))
                if id(held) not in self._before:
                    self._before[id(held)] = held.detach().clone()

    def watch_all(self) -> None:
        """Note that a call reads whatever it may: it is compiled. One that writes over a buffer cannot run again."""
        for tensor in (held for watched in self._watched.values() for held in watched):
            self._read.setdefault(id(tensor), (tensor, tensor._version))

    def forget_unchanged(self) -> None:
        """The run, or a part of it, has ended."""
        self._written |= {id(held) for held, tensor, version in self._perhaps_written if tensor._version != version}
        self._before = {held: before for held, before in self._before.items() if held in self._written}
        self._perhaps_written.clear()

    def check(self, what: str) -> None:
        """Raise `RuntimeError` where something that the first run read, and did not write, has been changed since."""
        for tensor, version in self._read.values():
            watched = self._watched.get(storage_key(tensor), [])
            if tensor._version != version and not any(id(held) in self._written for held in watched):
                raise RuntimeError(
                    f"{self._name(tensor)} was changed in place between the forward and the backward pass, which "
                    f"computes {what} again with it: change it after the backward pass, or "
                    "disable_gradient_checkpointing() first"
                )

    def _name(self, tensor: Tensor) -> str:
        prefixes: dict[nn.Module, str] = {}
        for module in self._modules:  # a parent comes before its children
            for name, child in module._modules.items():
                if child is not None:
                    prefixes.setdefault(child, f"{prefixes.get(module, '')}{name}.")
            for name, own in (*module._parameters.items(), *module._buffers.items()):
                if own is not None and storage_key(own) == storage_key(tensor):
                    return f"{prefixes.get(module, '')}{name} {list(own.shape)}"
        return f"a tensor {list(tensor.shape)} that learns"

    @contextmanager
    def as_before(self) -> Iterator[None]:
        """Let the modules have what the run found. What the block changes of them is undone.

        Running statistics are updated in copies. (A momentum of 0 would still count the batch, and turn an infinite
        statistic into NaN; without statistics a layer saves two tensors less for its backward pass than at first.)
        """
        now = [(registry, name, registry[name]) for registry, name, _ in self._entries if name in registry]
        states = [(generator, generator.get_state()) for generator, _ in self._generators]
        for registry, name, tensor in self._entries:
            registry[name] = self._found(tensor)
        for generator, state in self._generators:
            generator.set_state(state)
        try:
            yield
        finally:
            for registry, name, current in now:
                registry[name] = current
            for generator, state in states:
                generator.set_state(state)

    def _found(self, tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        if id(tensor) in self._statistics:
            return tensor.clone()
        before = self._before.get(id(tensor))
        return tensor if before is None else before.clone().requires_grad_(tensor.requires_grad)


def _with_subclasses(kind: type) -> set[type]:
    return {kind}.union(*map(_with_subclasses, kind.__subclasses__()))
