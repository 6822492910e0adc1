"""Calls of units that run compiled, under `torch.compile` of the network or of a part of it.

Each unit is compiled alone, by the compiler that the user has chosen. What is between the units is not compiled: the
modes of checkpointing act there. Inside of a compiled call no mode is active, and what it saves for its backward pass
goes through the same hooks as everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from itertools import count
from types import FunctionType
from typing import Any

from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from aerofuse.memory.torch_private import call_compiled, current_function_mode, current_function_mode_off


class RunMode(TorchFunctionMode):
    """A mode that sees a compiled call as one function of torch, and is not active inside of it."""


@dataclass(frozen=True, eq=False)
class CompiledFunction:
    """The function of a call, compiled by `compiler` in a frame for calls of its kind.

    Of one that `saves_inputs`, nothing else is saved: the compiler puts the second run into the backward pass. That
    takes less time than another call, because it leaves out what no gradient needs.
    """

    plain: Callable[..., Any]
    compiler: Any
    frames: Frames
    kind: Hashable
    saves_inputs: bool = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        mode = current_function_mode()
        if isinstance(mode, RunMode):
            with current_function_mode_off():
                return mode.__torch_function__(self, (), args, kwargs)  # type: ignore[no-untyped-call]
        frame = self.frames.frame(_recomputed if self.saves_inputs else _called, self.kind)
        return call_compiled(self.compiler, frame, self.plain, args, kwargs)


class Frames:
    """Frames for compiled calls: calls of a kind, run in one way, share one, and so what was compiled in it.

    In one frame for all, a compiler would take sizes that differ from unit to unit for sizes that change all the time.
    """

    _numbers = count()

    def __init__(self) -> None:
        self._frames: dict[Hashable, Callable[..., Any]] = {}

    def frame(self, way: Callable[..., Any], kind: Hashable) -> Callable[..., Any]:
        """Return the frame for calls of a kind. It is called with a function and its arguments, as `way` is."""
        if (way, kind) not in self._frames:
            code = way.__code__.replace(co_name=f"unit_{next(self._numbers)}")  # a compiler knows it by its name
            self._frames[way, kind] = FunctionType(code, globals())
        return self._frames[way, kind]


def _called(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return function(*args, **kwargs)


def _recomputed(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return checkpoint(function, *args, use_reentrant=False, **kwargs)
