"""What the project's commands share in reading their arguments."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection


def one_of(known: Collection[str]) -> Callable[[str], str]:
    """A type of argument: a name out of `known`.

    argparse's own `choices` refuse an empty list of positional arguments, in some versions of Python.
    """

    def check(name: str) -> str:
        if name not in known:
            raise argparse.ArgumentTypeError(f"{name!r} is not known; there are {', '.join(known)}")
        return name

    return check
