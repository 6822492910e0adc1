"""How threads wait. It is set before torch is imported, so nothing here imports anything large."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

# By any of them a user may have said it: OpenMP's own name, and those of GNU's and Intel's libraries.
_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
_SPINS = "1000"  # some microseconds


def spin_briefly_while_waiting() -> None:
    """Let the threads of OpenMP spin briefly while they wait for each other, then sleep, unless the user has set this.

    By default they spin for long. Then one other busy process makes a training many times slower. Threads that sleep at
    once make it slower on an idle machine, because waking up takes longer than most of their waits. The numbers are in
    `docs/training.md`.
    """
    if not os.environ.keys() & set(_SETTINGS):
        os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": _SPINS}


def in_new_thread(function: Callable[[], Result]) -> Result:
    """Return `function()`, run where torch is as in a new program: no autocast, no mode and no hooks are on."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(function).result()
