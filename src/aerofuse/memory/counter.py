"""Counting the bytes of the tensors that are alive, by kind."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, Self

import torch
from torch import Tensor, UntypedStorage, nn
from torch.optim import Optimizer

from aerofuse.memory.report import Kind, MemoryReport
from aerofuse.memory.torch_private import LightDispatchMode, in_backward

_SUM = torch.ops.aten.add.Tensor


@dataclass(slots=True)
class _LiveStorage:
    reference: weakref.ref[UntypedStorage]
    kind: Kind
    num_bytes: int


class _LiveStorages:
    """The storages of the tensors that were noted and still live, each once and at its full size.

    Storages are held weakly: they leave when their last tensor does, wherever it was held.
    """

    def __init__(self) -> None:
        self._entries: dict[int, _LiveStorage] = {}
        self.bytes_by_kind = dict.fromkeys(Kind, 0)

    def note(self, tensor: Tensor, kind: Kind) -> bool:
        """Count the storage of `tensor` under `kind` if it is new, or has grown; whether there are more bytes now."""
        storage = tensor.untyped_storage()
        num_bytes = storage.nbytes()
        entry = self._entries.get(id(storage))
        if entry is None:
            key = id(storage)
            self._entries[key] = _LiveStorage(weakref.ref(storage, partial(self._forget, key)), kind, num_bytes)
            self.bytes_by_kind[kind] += num_bytes
            return num_bytes > 0
        growth = num_bytes - entry.num_bytes
        self.bytes_by_kind[entry.kind] += growth
        entry.num_bytes = num_bytes
        return growth > 0

    def reclassify(self, tensor: Tensor, kind: Kind) -> None:
        """Count the storage of `tensor` under `kind` from now on, whether it was known or not."""
        self.note(tensor, kind)
        entry = self._entries[id(tensor.untyped_storage())]
        self.bytes_by_kind[entry.kind] -= entry.num_bytes
        self.bytes_by_kind[kind] += entry.num_bytes
        entry.kind = kind

    def stop(self) -> None:
        """Follow the storages no longer; the sums stay as they are."""
        self._entries.clear()

    def _forget(self, key: int, _reference: weakref.ref[UntypedStorage]) -> None:
        entry = self._entries.pop(key)
        self.bytes_by_kind[entry.kind] -= entry.num_bytes


class LiveBytes(LightDispatchMode):
    """A context manager that counts the bytes of the tensors alive, now and at most, by kind.

    It sees every operation's results, on the CPU, on CUDA or under a `FakeTensorMode` that was entered before it.
    A storage counts once, at its full size, from birth to death; one that was there before and is neither of the
    model, the optimiser nor the inputs counts from when an operation first returns it. What a kernel allocates for
    itself inside one operation is not seen.

    torch's own `MemTracker` (torch.distributed._tools) is not used: it wants a torch built with distributed, takes
    a recomputation for activations only where a module runs its forward, has no peak of activations and
    temporaries together, and counts a sum of gradients as a further tensor.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer | None = None, inputs: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._model = model
        self._optimizer = optimizer
        self._inputs = list(inputs)
        self._storages = _LiveStorages()
        self._undo = ExitStack()
        self._in_optimizer = False
        self.reset_peak()

    @property
    def bytes_by_kind(self) -> Mapping[Kind, int]:
        """Return bytes alive now, or when the context ended, a copy."""
        return dict(self._storages.bytes_by_kind)

    @property
    def activation_bytes(self) -> int:
        """Return bytes of activations and temporaries alive now."""
        by_kind = self._storages.bytes_by_kind
        return by_kind[Kind.ACTIVATIONS] + by_kind[Kind.TEMPORARIES]

    def reset_peak(self) -> None:
        """Forget the peaks so far: they start again from what is alive now."""
        self._peak_bytes = self._peak_activation_bytes = -1
        self._note_peaks()

    def report(self) -> MemoryReport:
        """Return the peaks since the context began, or since `reset_peak`."""
        return MemoryReport(self._peak_bytes, self._at_peak, self._peak_activation_bytes)

    def run(self, func: Callable[..., Any], args: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """Run an operation and count what it returns."""
        results = self.hand_on(func, args, keywords)
        # A recomputation inside the backward pass records gradients; the rest of the backward pass does not.
        is_backward = in_backward() and not torch.is_grad_enabled()
        kind = Kind.TEMPORARIES if is_backward or self._in_optimizer else Kind.ACTIVATIONS
        grown = False
        for result in results if isinstance(results, tuple | list) else (results,):
            if isinstance(result, Tensor):
                grown |= self._storages.note(result, kind)
        # autograd sums the gradients of a tensor that was used twice in place, but not under a dispatch mode:
        # here the operands die right after, and no moment with all three is real.
        if grown and not (func is _SUM and is_backward):
            self._note_peaks()
        return results

    def __enter__(self) -> Self:
        self._storages = _LiveStorages()
        self._note_what_exists()
        self.reset_peak()
        with ExitStack() as undo:
            for parameter in self._model.parameters():
                if parameter.requires_grad:
                    undo.enter_context(parameter.register_post_accumulate_grad_hook(self._note_gradient))
            if self._optimizer is not None:
                undo.enter_context(self._optimizer.register_step_pre_hook(self._begin_optimizer_step))
                undo.enter_context(self._optimizer.register_step_post_hook(self._end_optimizer_step))
            super().__enter__()
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        self._undo.close()
        self._storages.stop()

    def _note_peaks(self) -> None:
        total_bytes = sum(self._storages.bytes_by_kind.values())
        if total_bytes > self._peak_bytes:
            self._peak_bytes, self._at_peak = total_bytes, self.bytes_by_kind
        self._peak_activation_bytes = max(self._peak_activation_bytes, self.activation_bytes)

    def _note_what_exists(self) -> None:
        for tensor in self._inputs:
            self._storages.reclassify(tensor, Kind.INPUTS)
        for tensor in chain(self._model.parameters(), self._model.buffers()):
            self._storages.reclassify(tensor, Kind.PARAMETERS)
            self._note_gradient(tensor)
        if self._optimizer is not None:
            self._note_optimizer_state(self._optimizer)

    def _note_gradient(self, tensor: Tensor) -> None:
        if tensor.grad is not None:
            self._storages.reclassify(tensor.grad, Kind.GRADIENTS)

    def _begin_optimizer_step(self, *_: Any) -> None:
        self._in_optimizer = True

    def _end_optimizer_step(self, optimizer: Optimizer, *_: Any) -> None:
        self._in_optimizer = False
        self._note_optimizer_state(optimizer)

    def _note_optimizer_state(self, optimizer: Optimizer) -> None:
        for state in optimizer.state.values():
            for value in state.values():
                if isinstance(value, Tensor):
                    self._storages.reclassify(value, Kind.OPTIMIZER_STATE)
