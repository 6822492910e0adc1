"""What the project's commands share in reading their arguments."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection

import torch


def one_of(known: Collection[str]) -> Callable[[str], str]:
    """A type of argument: a name out of `known`.

    argparse's own `choices` refuse an empty list of positional arguments, in some versions of Python.
    """

    def check(name: str) -> str:
        if name not in known:
            raise argparse.ArgumentTypeError(f"{name!r} is not known; there are {', '.join(known)}")
        return name

    return check


def device_here(text: str) -> torch.device:
    """A type of argument: a device that torch finds here, such as `cpu` or `cuda`."""
    try:
        device = torch.device(text)
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"{text!r} is no device; there are cpu and cuda") from None
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and not torch.cuda.is_available()):
        raise argparse.ArgumentTypeError(f"there is no {text!r} here for torch to work on")
    return device


def at_least(least: int) -> Callable[[str], int]:
    """A type of argument: a whole number, `least` or more."""

    def check(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} up")
        return int(text)

    return check
