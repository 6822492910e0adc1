"""The calls of a network that its units are made of, and the stand-in for `forward` that hands them over."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from torch import Tensor, nn

from aerofuse.checkpointing.pieces import pieces_of

Function = Callable[..., Any]


@dataclass(frozen=True)
class FoundUnit:
    """One link of a chain: calls that follow each other, each of which takes what the one before it has returned.

    `calls` are named by their modules (`layers.0.downsample`), by a module and a piece of it
    (`layers.0.blocks.1:attention`). A module that is called several times has its name as often.
    """

    calls: tuple[str, ...]

    @property
    def name(self) -> str:
        """Return what messages and tables call the unit."""
        return self.calls[0] if len(self.calls) == 1 else f"{self.calls[0]} to {self.calls[-1]}"


def module_of(call: str) -> str:
    """Return the name of the module that is called."""
    return call.partition(":")[0]


class CallTaker(Protocol):
    """Runs calls of units of a network in its own way."""

    @property
    def network(self) -> nn.Module | None:
        """Return the network, or `None` where it follows nothing."""

    def take(self, call: str, function: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Return `function(*args, **kwargs)`."""


class _Nobody:
    @property
    def network(self) -> None:
        return None

    def take(self, _: str, function: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        return function(*args, **kwargs)


class UnitForward:
    """Stands in for the `forward` of a module and hands its calls to a taker, piece by piece where it has pieces.

    Hooks, and whatever else `__call__` does, are outside. It copies and pickles with its module.
    """

    def __init__(self, module: nn.Module, name: str, taker: CallTaker) -> None:
        self._module, self._name, self.taker = module, name, taker
        # Where somebody has given the module a `forward` of its own, that one runs.
        self.override: Function | None = vars(module).get("forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        pieces = pieces_of(self._module) if self.override is None else {}
        if pieces and len(args) == 1 and not kwargs and isinstance(args[0], Tensor):
            (x,) = args
            for name, piece in pieces.items():
                x = self.taker.take(f"{self._name}:{name}", piece, (x,), {})
            return x
        return self.taker.take(self._name, self.original, args, kwargs)

    @property
    def original(self) -> Function:
        """Return what it stands in for."""
        # No bound method: a compiler would look it up by its name, and find this again.
        return self.override or partial(type(self._module).forward, self._module)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A copy of a part of a network alone is followed by nobody."""
        twin = copy.copy(self)
        memo[id(self)] = twin
        if id(self.taker.network) not in memo:
            twin.taker = _Nobody()
        vars(twin).update({name: copy.deepcopy(value, memo) for name, value in vars(twin).items()})
        return twin

    @property
    def __signature__(self) -> inspect.Signature:
        """What exporters and trainers read."""
        return inspect.signature(self.original)


def forward_of(module: nn.Module) -> Function:
    """Return the `forward` of a module that nobody stands in for."""
    stand_in = module.forward
    return stand_in.original if isinstance(stand_in, UnitForward) else stand_in
