"""Computing a range of units again in the backward pass.

While a range runs forward, every tensor that autograd wants to save is replaced by an empty slot. The first slot
that the backward pass opens makes the range run again, from its input; what autograd saves then, in the same order,
fills the slots. This is the non-reentrant scheme of `torch.utils.checkpoint`, which is not used itself because it
cannot be combined with other hooks on saved tensors inside a range: here the second run may follow a plan of its own,
whose selective units and inner ranges put their own promises into the slots.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from aerofuse.checkpointing.compiled import CompiledFunction, RunMode
from aerofuse.checkpointing.in_place import run_with_in_place_backward
from aerofuse.checkpointing.module_tensors import ModuleTensors
from aerofuse.checkpointing.operations import REPEATABLE
from aerofuse.checkpointing.saved_tensors import (
    Packed,
    SavedTensor,
    before_backward,
    hand_over,
    received_by,
    refuse_second_derivatives,
)
from aerofuse.checkpointing.snapshot import Autocast, RandomState
from aerofuse.memory.torch_private import never_compiled


class _Slot:
    """The place of one saved tensor of a range; `content` is what fills it."""

    __slots__ = ("__weakref__", "_range", "content", "dtype", "shape")

    def __init__(self, owner: Range, tensor: Tensor) -> None:
        self._range = owner
        self.shape, self.dtype = tensor.shape, tensor.dtype
        self.content: Tensor | Packed | None = None

    def unpack(self) -> Tensor:
        refuse_second_derivatives()
        if self.content is None:
            self._range.run_again()
        # Taken: a second backward pass over the same graph computes again.
        content, self.content = self.content, None
        assert content is not None
        return content if isinstance(content, Tensor) else content.unpack()


class _Enough(BaseException):
    """All slots are filled: the second run stops here. No `Exception`: a unit may catch those."""


class _FirstRun(RunMode):
    """Gives activations an in-place backward pass, and notes what the run reads and writes of its modules."""

    def __init__(self, tensors: ModuleTensors, slots: Sequence[object]) -> None:
        super().__init__()
        self._tensors, self._slots = tensors, slots
        self._num_repeatable = 0

    @property
    def may_stop(self) -> bool:
        """Return whether the call that saved the last tensor need not end, when it is made again, after it has done so.

        One that is known to compute its result alone need not. The noise of `rrelu` is drawn after the tensor is saved.
        """
        return len(self._slots) == self._num_repeatable

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        if isinstance(func, CompiledFunction):
            self._tensors.watch_all()
        else:
            self._tensors.watch(func, args, kwargs or {})
        before = len(self._slots)
        result = run_with_in_place_backward(func, args, kwargs or {})
        if len(self._slots) > before and getattr(func, "__name__", "") in REPEATABLE:
            self._num_repeatable = len(self._slots)
        return result


class _SecondRun:
    """Fills the slots of a range. Where it `may_stop`, it does so when all are filled."""

    def __init__(self, slots: Sequence[weakref.ref[_Slot]], *, may_stop: bool) -> None:
        self._slots, self._may_stop = slots, may_stop
        self._received = 0

    @property
    def has_all(self) -> bool:
        return self._received == len(self._slots)

    def receive(self, packed: Packed | Tensor, tensor: Tensor) -> None:
        """Put what is saved for `tensor` into the next slot."""
        if self.has_all and self._may_stop:
            return  # it has stopped, and whoever cleans up after it calls torch, too
        if self.has_all:
            raise RuntimeError("a checkpointed range saved more tensors when it ran again: it is not deterministic")
        slot = self._slots[self._received]()
        self._received += 1
        if slot is not None:
            if (slot.shape, slot.dtype) != (tensor.shape, tensor.dtype):
                raise RuntimeError(
                    f"a checkpointed range saved {list(tensor.shape)} {tensor.dtype} when it ran again, "
                    f"{list(slot.shape)} {slot.dtype} at first: it is not deterministic"
                )
            slot.content = packed
        if self._may_stop and self.has_all:
            raise _Enough

    @never_compiled
    def collect(self, tensor: Tensor) -> None:
        """Put a tensor into the next slot. The second run's graph is thrown away, so that it need not have it, too."""
        self.receive(tensor.detach(), tensor)


class Range:
    """One run of consecutive units, of which only the input is saved.

    The first run may come in parts, each within `first_run` and followed by `end`.
    """

    def __init__(self, again: Callable[[Tensor], Tensor], modules: Iterable[nn.Module], x: Tensor, name: str):
        self._again, self._name = again, name
        self._tensors = ModuleTensors(modules)
        self._input, self._requires_grad = SavedTensor(x), x.requires_grad
        self._autocast, self._random = Autocast.capture(x.device), RandomState.capture(x.device)
        self._num_parts = 0
        # Weak: a tensor that the backward pass never asks for is not worth filling.
        self._slots: list[weakref.ref[_Slot]] = []
        self._first_run = _FirstRun(self._tensors, self._slots)

    @contextmanager
    def first_run(self) -> Iterator[None]:
        """What autograd saves in the block gets slots."""
        # Autocast's cache stays as it is: passes that share a copy of a weight sum its gradient in the lower precision.
        with saved_tensors_hooks(self._pack, _Slot.unpack), self._first_run:
            yield
        self._tensors.forget_unchanged()

    @never_compiled
    def _pack(self, tensor: Tensor) -> Packed:
        slot = _Slot(self, tensor)
        self._slots.append(weakref.ref(slot))
        return hand_over(slot, tensor)

    def end(self, outputs: Iterable[Tensor]) -> None:
        """The first run, or a part of it, has ended with these tensors."""
        if self._slots:
            self._input.offer()
        self._num_parts += 1
        part = self._num_parts
        before_backward(outputs, self, lambda found: found._fill(part))

    def _fill(self, part: int) -> None:
        """The backward pass comes to the end of a part: run the range again, before a parameter of it has a gradient.

        A parameter may be changed as soon as it has one, by an optimiser that steps in the backward pass.
        """
        refuse_second_derivatives()
        alive = [slot for born in self._slots if (slot := born()) is not None]
        if part == self._num_parts and any(slot.content is None for slot in alive):
            self.run_again()

    def run_again(self) -> None:
        """Fill the slots."""
        self._tensors.check(self._name)
        second_run = _SecondRun(self._slots, may_stop=self._first_run.may_stop)
        x = self._input.get().detach().requires_grad_(self._requires_grad)
        with (
            torch.enable_grad(),
            self._autocast.restored(cache=True),
            self._random.replayed(),
            self._tensors.as_before(),
            received_by(second_run.receive),
            saved_tensors_hooks(second_run.collect, _never),
        ):
            try:
                self._again(x)
            except _Enough:
                return
        if not second_run.has_all:
            raise RuntimeError("a checkpointed range saved fewer tensors when it ran again: it is not deterministic")


def _never(_: None) -> Tensor:
    raise AssertionError("the graph of a second run is never walked")


def run_recomputed(
    once: Callable[[Tensor], Tensor],
    again: Callable[[Tensor], Tensor],
    modules: Iterable[nn.Module],
    x: Tensor,
    name: str = "a range",
) -> Tensor:
    """Return `once(x)` and save nothing but `x`; in the backward pass `again(x)`, the same function, supplies the rest.

    `modules` are those that the function uses: the second run has the parameters, buffers and own random generators
    of the first one, and changes none. `name` is what messages call the range.
    """
    current = Range(again, modules, x, name)
    with current.first_run():
        output = once(x)
    current.end([output] if output is not x else [])
    return output
