"""Computing a range of units again in the backward pass.

While a range runs forward, every tensor that autograd wants to save is replaced by an empty slot. The first slot
that the backward pass opens makes the range run again, from its input; what autograd saves then, in the same order,
fills the slots. This is the non-reentrant scheme of `torch.utils.checkpoint`, which is not used itself because it
cannot be combined with other hooks on saved tensors inside a range: here the second run may follow a plan of its own,
whose selective units and inner ranges put their own promises into the slots.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from aerofuse.checkpointing.compiled import StepsAside
from aerofuse.checkpointing.in_place import run_with_in_place_backward
from aerofuse.checkpointing.module_tensors import ModuleTensors
from aerofuse.checkpointing.operations import REPEATABLE
from aerofuse.checkpointing.snapshot import Autocast, RandomState
from aerofuse.memory.torch_private import never_compiled, saved_tensor_hooks

Unpack = Callable[[Any], Tensor]


class _Slot:
    """The place of one saved tensor of a range."""

    __slots__ = ("__weakref__", "dtype", "filled", "promise", "range", "shape", "unpack")

    def __init__(self, owner: Range, tensor: Tensor) -> None:
        self.range = owner
        self.shape, self.dtype = tensor.shape, tensor.dtype
        self.filled = False
        self.promise: Any = None
        self.unpack: Unpack | None = None


class _Enough(BaseException):
    """All slots are filled: the second run stops here. No `Exception`: a unit may catch those."""


class _FirstRun(StepsAside):
    """Gives activations an in-place backward pass, and notes what the run reads and writes of its modules."""

    def __init__(self, tensors: ModuleTensors) -> None:
        super().__init__()
        self._tensors = tensors

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        keywords = kwargs or {}
        after = self._tensors.watch(func, args, keywords)
        result = run_with_in_place_backward(func, args, keywords)
        after()
        return result

    def before_compiled_call(self) -> None:
        self._tensors.watch_all()

    def after_compiled_call(self) -> None:
        """Nothing is to do."""


class _SecondRun(StepsAside):
    """Stops a second run, once, when its range has all that it wants: whoever cleans up after it calls torch too.

    A call that is known to compute its result alone need not do so then. Any other one ends first: the noise of
    `rrelu` is drawn after autograd has saved its tensor.
    """

    def __init__(self) -> None:
        super().__init__()
        self._may_stop = False
        self._has_all = self._has_stopped = False

    def stop(self) -> None:
        """Stop now, or after the call that is being made."""
        self._has_all = True
        if self._may_stop:
            self._stop()

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        self._may_stop = getattr(func, "__name__", "") in REPEATABLE
        result = func(*args, **(kwargs or {}))
        if self._has_all:
            self._stop()
        self._may_stop = False
        return result

    def before_compiled_call(self) -> None:
        self._may_stop = False

    def after_compiled_call(self) -> None:
        if self._has_all:
            self._stop()

    def _stop(self) -> None:
        if not self._has_stopped:
            self._has_stopped = True
            raise _Enough


class _Threads(threading.local):
    """The ranges that are being computed again in this thread, innermost last: autograd has a thread per device."""

    def __init__(self) -> None:
        self.running: list[Range] = []


_threads = _Threads()


def hand_over(promise: Any, unpack: Unpack, tensor: Tensor) -> Any:
    """Tell a range that is being computed again, if one is, what was saved in place of `tensor`. Returns `promise`.

    Whoever packs saved tensors inside a range calls this for each, in the order of saving.
    """
    if _threads.running:
        _threads.running[-1].receive(promise, unpack, tensor)
    return promise


def is_recomputing() -> bool:
    """Return whether this thread computes a range again."""
    return bool(_threads.running)


def hooks_of_user() -> tuple[Callable[[Tensor], Any], Unpack] | None:
    """Return the hooks on saved tensors around a first run, to pack and to unpack."""
    return None if _threads.running else saved_tensor_hooks()


class Offered:
    """A tensor that is saved besides autograd's own. The user's hooks may put it elsewhere, as they do with those."""

    __slots__ = ("_packed", "_unpack", "_version")

    def __init__(self, tensor: Tensor) -> None:
        self._packed: Any = tensor
        self._version = tensor._version
        self._unpack: Unpack | None = None

    def offer(self) -> None:
        """Give the tensor to the hooks of the user, if there are any."""
        if (hooks := hooks_of_user()) is not None:
            self._packed = hooks[0](self.get())
            self._unpack = hooks[1]

    def get(self) -> Tensor:
        """Return the tensor. Raises `RuntimeError` where it was changed in place."""
        if self._unpack is not None:
            return self._unpack(self._packed)
        tensor: Tensor = self._packed
        if tensor._version != self._version:
            raise changed_in_place(tensor.shape)
        return tensor


def changed_in_place(shape: torch.Size) -> RuntimeError:
    """Return the error for a tensor that somebody has written to after it was saved."""
    return RuntimeError(
        f"a tensor {list(shape)} that the backward pass needs (input? weight?) was changed in place after it was "
        "saved: change it after the backward pass, or disable_gradient_checkpointing() first"
    )


def refuse_second_derivatives() -> None:
    """Raises `RuntimeError` in a backward pass that is itself being recorded."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            "gradient checkpointing has no second derivatives: call backward without create_graph=True, or "
            "disable_gradient_checkpointing() first"
        )


class Range:
    """One run of consecutive units, of which only the input is saved.

    The first run may come in parts, each within `first_run` and followed by `end`.
    """

    def __init__(self, again: Callable[[Tensor], Tensor], modules: Iterable[nn.Module], x: Tensor, name: str):
        self._again = again
        self._name = name
        self.tensors = ModuleTensors(modules)
        self._input = Offered(x.detach())
        self._is_offered = False
        self._num_parts = 0
        self._requires_grad = x.requires_grad
        self._autocast = Autocast.capture(x.device)
        self._random = RandomState.capture(x.device)
        # Weak: a tensor that the backward pass never asks for is not worth filling.
        self._slots: list[weakref.ref[_Slot]] = []
        self._received = 0
        self._second_run = _SecondRun()

    @never_compiled
    def pack(self, tensor: Tensor) -> Any:
        slot = _Slot(self, tensor)
        self._slots.append(weakref.ref(slot))
        return hand_over(slot, self.unpack, tensor)

    @contextmanager
    def first_run(self) -> Iterator[None]:
        """What autograd saves in the block gets slots."""
        # Autocast's cache stays as it is: passes that share a copy of a weight sum its gradient in the lower precision.
        with saved_tensors_hooks(self.pack, self.unpack), _FirstRun(self.tensors):
            yield

    def end(self, outputs: Iterable[Tensor]) -> None:
        """The first run, or a part of it, has ended with these tensors."""
        if self._slots and not self._is_offered:
            self._is_offered = True
            self._input.offer()
        self._num_parts += 1
        # Weak: the graph keeps its hooks to the end of the backward pass, and the range has the input. A node's hook
        # comes after those of its tensors, with one of which `fully_shard` gathers the weights that the range needs.
        alive, part = weakref.ref(self), self._num_parts
        for output in outputs:
            if output.grad_fn is not None:
                output.grad_fn.register_prehook(lambda _: None if (found := alive()) is None else found._fill(part))

    def _fill(self, part: int) -> None:
        """The backward pass comes to the end of a part: run the range again, before a parameter of it has a gradient.

        A parameter may be changed as soon as it has one, by an optimiser that steps in the backward pass.
        """
        refuse_second_derivatives()
        if part == self._num_parts and any((slot := born()) is not None and not slot.filled for born in self._slots):
            self._run_again()

    def unpack(self, slot: _Slot) -> Tensor:
        refuse_second_derivatives()
        if not slot.filled:
            self._run_again()
        promise, unpack = slot.promise, slot.unpack
        # Taken: a second backward pass over the same graph computes again.
        slot.filled, slot.promise, slot.unpack = False, None, None
        return unpack(promise) if unpack is not None else promise

    def receive(self, promise: Any, unpack: Unpack | None, tensor: Tensor) -> None:
        if self._received == len(self._slots):
            raise RuntimeError("a checkpointed range saved more tensors when it ran again: it is not deterministic")
        slot = self._slots[self._received]()
        self._received += 1
        if slot is not None:
            if (slot.shape, slot.dtype) != (tensor.shape, tensor.dtype):
                raise RuntimeError(
                    f"a checkpointed range saved {list(tensor.shape)} {tensor.dtype} when it ran again, "
                    f"{list(slot.shape)} {slot.dtype} at first: it is not deterministic"
                )
            slot.filled, slot.promise, slot.unpack = True, promise, unpack
        if self._received == len(self._slots):
            self._second_run.stop()

    def _run_again(self) -> None:
        self.tensors.check(self._name)
        self._received = 0
        self._second_run = _SecondRun()
        x = self._input.get().detach().requires_grad_(self._requires_grad)
        with (
            torch.enable_grad(),
            self._autocast.restored(cache=True),
            self._random.replayed(),
            self.tensors.as_before(),
            self._receiving(),
            saved_tensors_hooks(self._collect, _never),
            self._second_run,
        ):
            try:
                self._again(x)
            except _Enough:
                return
        if self._received < len(self._slots):
            raise RuntimeError("a checkpointed range saved fewer tensors when it ran again: it is not deterministic")

    @never_compiled
    def _collect(self, tensor: Tensor) -> None:
        # Nothing is returned: the second run's graph is thrown away, the slots alone hold the tensors.
        self.receive(tensor.detach(), None, tensor)

    @contextmanager
    def _receiving(self) -> Iterator[None]:
        _threads.running.append(self)
        try:
            yield
        finally:
            _threads.running.pop()


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
