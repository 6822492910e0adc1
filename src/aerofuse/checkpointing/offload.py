"""Offload: what autograd saves of a call waits in host memory, and is brought back in the backward pass.

The copies run on a stream of their own. Memory of the device belongs to the stream that computes: a tensor that goes
stays until the call after it has run, and only then does the computing stream wait for its copy; a tensor that comes
back is there one call ahead, and the computing stream waits for it before anything may free it. So no stream has to be
recorded with the allocator, which would free at times that nothing predicts. Where the device is a CPU, its streams do
nothing, and the copies are plain ones.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from aerofuse.checkpointing.saved_tensors import changed_in_place, hooks_of_user
from aerofuse.checkpointing.tensors import layout_of, storage_key
from aerofuse.memory.torch_private import FakeTensor, all_modes_off, never_compiled

# Smaller storages stay on the device: to start two copies takes longer than their bytes are worth.
LEAST_BYTES = 2**16


class HostCopy:
    """A storage of the device, `[n]` elements, that is copied to host memory at once, and back when it is asked for."""

    def __init__(self, whole: Tensor) -> None:
        self._device = whole.device
        self._on_device: Tensor | None = whole
        self._arrival: Any = None
        with all_modes_off():  # whoever counts the memory of the device does not see that of the host
            pinned = whole.is_cuda and not isinstance(whole, FakeTensor)
            self._host = torch.empty_like(whole, device="cpu", pin_memory=pinned)
            self._departure = self._copy(self._host, whole)

    def is_of(self, tensor: Tensor) -> bool:
        """Return whether it is the storage of `tensor`, of which the memory has not been given up."""
        return self._on_device is not None and storage_key(self._on_device) == storage_key(tensor)

    def leave(self) -> None:
        """Give up the memory of the device."""
        self._wait()
        self._computing_stream().wait_event(self._departure)
        self._on_device = None

    def fetch(self) -> None:
        """Begin to copy it back, unless it is there."""
        if self._on_device is None:
            self._on_device = torch.empty_like(self._host, device=self._device)
            self._arrival = self._copy(self._on_device, self._host)

    def get(self) -> Tensor:
        """Return it on the device, `[n]`."""
        self.fetch()
        self._wait()
        assert self._on_device is not None
        return self._on_device

    def _copy(self, target: Tensor, source: Tensor) -> Any:
        """Return the event of the end of a copy, which begins when the device has done what it was told so far."""
        stream = _copying_stream(self._device)
        stream.wait_stream(self._computing_stream())
        with torch.get_device_module(self._device).stream(stream):
            target.copy_(source, non_blocking=True)
            return stream.record_event()

    def _wait(self) -> None:
        if self._arrival is not None:
            self._computing_stream().wait_event(self._arrival)
            self._arrival = None

    def _computing_stream(self) -> Any:
        return torch.get_device_module(self._device).current_stream(self._device)

    def __del__(self) -> None:
        """What the backward pass never asked for must not be freed while it is being written."""
        self._wait()


@cache
def _copying_stream(device: torch.device) -> Any:
    return torch.get_device_module(device).Stream(device)


class _Saved:
    """A tensor that autograd saves: on the device, or a view of what is in host memory."""

    __slots__ = ("__weakref__", "_copy", "_layout", "_version", "alias")

    def __init__(self, tensor: Tensor) -> None:
        self.alias = tensor.detach()
        self._layout, self._version = layout_of(tensor), tensor._version
        self._copy: HostCopy | None = None

    @property
    def key(self) -> Hashable:
        """Return what is equal for tensors that one copy serves."""
        return storage_key(self.alias), self.alias.dtype, self._version

    def move(self, copy: HostCopy) -> None:
        """Let go of the memory, which `copy` has. The alias without it still tells when its tensor is written to."""
        self._copy = copy
        self.alias.data = self.alias.new_empty(0)

    def get(self) -> Tensor:
        """Return the tensor on the device. Raises `RuntimeError` where it was changed in place since it was saved."""
        if self.alias._version != self._version:
            raise changed_in_place(self._layout[0])
        return self.alias if self._copy is None else self._copy.get().as_strided(*self._layout)


class OffloadedCall:
    """One call whose saved tensors wait in host memory.

    Tensors of `modules` stay where they are, and other parameters; so do `inputs` that need no gradient, such as images
    and masks: all of them live anyway. What the call `before`, of which the memory is still there, has copied already
    is not copied again.
    """

    def __init__(
        self, modules: Iterable[nn.Module], inputs: Iterable[Tensor], before: OffloadedCall | None = None
    ) -> None:
        own = (tensor for module in modules for tensor in (*module.parameters(), *module.buffers()))
        given = (tensor for tensor in inputs if not tensor.requires_grad)
        self._stay = {storage_key(tensor) for tensor in chain(own, given)}
        self._before = {} if before is None else dict(before._copies)
        self._hooks = hooks_of_user()
        self._saved: list[weakref.ref[_Saved]] = []
        # Weak, as everything here: what was saved lives as long as autograd's graph has it.
        self._copies: weakref.WeakValueDictionary[Hashable, HostCopy] = weakref.WeakValueDictionary()

    @contextmanager
    def saving(self) -> Iterator[None]:
        """What autograd saves in the block is copied to host memory when it ends."""
        with saved_tensors_hooks(self._pack, self._unpack):
            yield
        for born in self._saved:
            if (saved := born()) is not None:
                key = saved.key
                copy = self._copies.get(key) or self._before.get(key)
                if copy is None or not copy.is_of(saved.alias):
                    copy = HostCopy(_whole(saved.alias))
                self._copies[key] = copy
                saved.move(copy)
        self._saved.clear()
        self._before = {}

    def leave(self, outputs: Iterable[Tensor]) -> None:
        """Give up the memory of the device until the backward pass comes to `outputs`, those of the call after it."""
        for copy in self._copies.values():
            copy.leave()
        for output in outputs:
            if output.grad_fn is not None:
                output.grad_fn.register_prehook(self._fetch)

    def _fetch(self, _gradients: Any) -> None:
        for copy in self._copies.values():
            copy.fetch()

    @never_compiled
    def _pack(self, tensor: Tensor) -> Any:
        # The user's hooks see what they would see; a tensor that they make of it, or leave as it is, is moved.
        packed = tensor if self._hooks is None else self._hooks[0](tensor)
        if not isinstance(packed, Tensor):
            return packed
        saved = _Saved(packed)
        if self._can_move(packed):
            self._saved.append(weakref.ref(saved))
        return saved

    def _unpack(self, packed: Any) -> Tensor:
        found = packed.get() if isinstance(packed, _Saved) else packed
        return found if self._hooks is None else self._hooks[1](found)

    def _can_move(self, tensor: Tensor) -> bool:
        if type(tensor) not in (Tensor, FakeTensor) or tensor.layout is not torch.strided:
            return False  # what a subclass means is not in its storage alone
        base = tensor if tensor._base is None else tensor._base
        lives_anyway = storage_key(tensor) in self._stay or (base.is_leaf and base.requires_grad)
        has_plain_values = not tensor.is_complex() and not tensor.is_neg()
        return not lives_anyway and has_plain_values and tensor.untyped_storage().nbytes() >= LEAST_BYTES


def _whole(tensor: Tensor) -> Tensor:
    """Return the storage of a tensor as one row of elements."""
    return tensor.as_strided((tensor.untyped_storage().nbytes() // tensor.itemsize,), (1,), 0)


def run_offloaded(run: Callable[[Tensor], Tensor], modules: Iterable[nn.Module], x: Tensor) -> Tensor:
    """Return `run(x)`. What autograd saves is in host memory until the backward pass comes to the output."""
    call = OffloadedCall(modules, [x])
    with call.saving():
        output = run(x)
    call.leave([output])
    return output
