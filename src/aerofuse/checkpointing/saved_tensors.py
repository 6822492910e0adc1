"""What is saved for the backward pass besides autograd's own tensors, and what autograd holds in the place of those."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from aerofuse.memory.torch_private import saved_tensor_hooks

Owner = TypeVar("Owner")


class Packed(Protocol):
    """What autograd holds in the place of a tensor."""

    def unpack(self) -> Tensor:
        """Return the tensor."""


Receiver = Callable[[Packed, Tensor], None]


class _Thread(threading.local):
    """Autograd has a thread per device: who is told what is saved in this one, innermost last."""

    def __init__(self) -> None:
        self.receivers: list[Receiver] = []


_thread = _Thread()


@contextmanager
def received_by(receiver: Receiver) -> Iterator[None]:
    """Compute a range again in the block, and tell `receiver` what is saved there, in the order of saving."""
    _thread.receivers.append(receiver)
    try:
        yield
    finally:
        _thread.receivers.pop()


def is_recomputing() -> bool:
    """Return whether this thread computes a range again."""
    return bool(_thread.receivers)


def hand_over(packed: Packed, tensor: Tensor) -> Packed:
    """Return `packed`, and tell the range that is being computed again, if one is, that it was saved for `tensor`."""
    if _thread.receivers:
        _thread.receivers[-1](packed, tensor)
    return packed


def hooks_of_user() -> tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]] | None:
    """Return the hooks on saved tensors around a first run, to pack and to unpack."""
    return None if is_recomputing() else saved_tensor_hooks()


class SavedTensor:
    """A tensor that is saved as it is. The user's hooks may put it elsewhere, as they do with autograd's own."""

    __slots__ = ("__weakref__", "_is_offered", "_packed", "_unpack", "_version")

    def __init__(self, tensor: Tensor) -> None:
        self._version = tensor._version
        self._is_offered = False
        # Detached: a graph that holds its own outputs is never freed.
        self._packed: Any = tensor.detach()
        self._unpack: Callable[[Any], Tensor] | None = None

    def copy(self) -> None:
        """Save a copy instead: the tensor is about to be written over."""
        self._packed = self.get().clone()
        self._version = self._packed._version

    def offer(self) -> None:
        """Give the tensor to the hooks of the user, if there are any now; once."""
        if not self._is_offered and (hooks := hooks_of_user()) is not None:
            self._packed, self._unpack = hooks[0](self.get()), hooks[1]
        self._is_offered = True

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


def before_backward(outputs: Iterable[Tensor], owner: Owner, act: Callable[[Owner], None]) -> None:
    """Call `act(owner)` when the backward pass comes to one of these tensors, if the owner is alive then.

    A node's hook comes after those of its tensors, with one of which `fully_shard` gathers weights.
    """
    alive = weakref.ref(owner)  # the graph keeps its hooks to the end of the backward pass
    for output in outputs:
        if output.grad_fn is not None:
            output.grad_fn.register_prehook(lambda _: None if (found := alive()) is None else act(found))
