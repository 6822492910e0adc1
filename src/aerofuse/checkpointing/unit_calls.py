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


FoundChain = tuple[FoundUnit, ...]


def module_of(call: str) -> str:
    """Return the name of the module that is called."""
    return call.partition(":")[0]


def every_module(network: nn.Module) -> list[nn.Module]:
    """Return the modules of a network, each once, parents first; faster than `network.modules()`."""
    found: dict[nn.Module, None] = {network: None}
    for module in (waiting := [network]):  # grows on the way
        for child in module._modules.values():
            if child is not None and child not in found:
                found[child] = None
                waiting.append(child)
    return waiting


class CallTaker(Protocol):
    """Runs calls of a network in its own way."""

    network: nn.Module

    def take(self, call: str, function: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Return `function(*args, **kwargs)`."""


class UnitForward:
    """Stands in for the `forward` of a module and hands its calls to a taker, piece by piece where it has pieces.

    Hooks, and whatever else `__call__` does, are outside. It copies and pickles with its module.
    """

    def __init__(self, module: nn.Module, name: str, taker: CallTaker) -> None:
        self._module, self._name = module, name
        self.taker: CallTaker | None = taker
        # Where somebody has given the module a `forward` of its own, that one runs.
        self.override: Function | None = vars(module).get("forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.taker is None:
            return self.original(*args, **kwargs)
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
        if self.taker is not None and id(self.taker.network) not in memo:
            twin.taker = None
        vars(twin).update({name: copy.deepcopy(value, memo) for name, value in vars(twin).items()})
        return twin

    @property
    def __signature__(self) -> inspect.Signature:
        """What exporters and trainers read."""
        return inspect.signature(self.original)


def stand_in_of(module: nn.Module) -> UnitForward | None:
    """Return what stands in for the `forward` of a module, if anything does."""
    found = vars(module).get("forward")
    return found if isinstance(found, UnitForward) else None


def remove_from(module: nn.Module) -> None:
    """Give a module its own `forward` back."""
    stand_in = stand_in_of(module)
    if stand_in is not None and stand_in.override is not None:
        module.forward = stand_in.override
    elif stand_in is not None:
        del module.forward


def forward_of(module: nn.Module) -> Function:
    """Return the `forward` of a module that nobody stands in for."""
    stand_in = stand_in_of(module)
    return module.forward if stand_in is None else stand_in.original
