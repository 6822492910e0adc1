"""Arguments that the project's commands share, and their types."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch


def device_here(text: str) -> torch.device:
    """Return a device that torch finds here, such as `cpu` or `cuda`; a type of argument."""
    try:
        device = torch.device(text)
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"{text!r} is no device; there are cpu and cuda") from None
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and not torch.cuda.is_available()):
        raise argparse.ArgumentTypeError(f"there is no {text!r} here for torch to work on")
    return device


def at_least(least: int) -> Callable[[str], int]:
    """Return a type of argument: a whole number that is `least` or more."""

    def check(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} up")
        return int(text)

    return check


def add_model_option(parser: argparse.ArgumentParser) -> None:
    """Declare `--model` for a command that uses a model."""
    default, text = Path("models/aerofuse"), "folder of the model (default: %(default)s)"
    parser.add_argument("--model", type=Path, default=default, metavar="DIR", help=text)
