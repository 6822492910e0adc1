"""Importing timm without torch.compile, which takes a second that a prediction does not need.

torchvision imports one function of `torch._dynamo` for its operators on boxes, and timm marks the methods of one
model with `torch.compiler.disable`. While they are imported a stand-in gives them functions that import the real
module when they are first called.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from types import ModuleType
from typing import Any

import torch

_COMPILER = "torch._dynamo"
_ITS_USERS = ("torchvision", "timm")


@contextmanager
def deferred_compiler() -> Iterator[None]:
    """Within it, what imports `torch._dynamo` gets a stand-in; nothing is done where the real one is there already."""
    if _COMPILER in sys.modules or any(name in sys.modules for name in _ITS_USERS):
        yield
        return
    stand_ins = {name: _StandIn(name) for name in (_COMPILER, f"{_COMPILER}.utils")}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]
        if isinstance(vars(torch).get("_dynamo"), _StandIn):
            del torch._dynamo


class _StandIn(ModuleType):
    """A module all of whose functions import the real one when they are called."""

    __path__: list[str] = []  # noqa: RUF012  # what makes a module a package

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        if self.__name__ == _COMPILER and name == "disable":
            return _disable_later
        return partial(_call_later, self.__name__, name)


def _call_later(module: str, name: str, *arguments: Any, **settings: Any) -> Any:
    return getattr(importlib.import_module(module), name)(*arguments, **settings)


def _disable_later(function: Callable[..., Any], *arguments: Any, **settings: Any) -> Callable[..., Any]:
    """What `torch.compiler.disable` returns for a function: one that is not compiled."""

    @wraps(function)
    def call(*values: Any, **named: Any) -> Any:
        return _call_later(_COMPILER, "disable", function, *arguments, **settings)(*values, **named)

    return call
