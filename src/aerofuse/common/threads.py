"""How threads wait. It is set before torch is imported, so nothing here imports anything large."""

from __future__ import annotations

import os

# By any of them a user may have said it: OpenMP's own name, and those of GNU's and Intel's libraries.
_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def sleep_while_waiting() -> None:
    """Let the threads of OpenMP sleep while they wait for each other, unless the user has set how they wait.

    By default they spin. Beside one other busy process on two cores a thin ConvNeXt then trains 32 to 48 images a
    second, and 112 to 190 with threads that sleep; on an idle machine it trains 343 to 421, and 345 to 379.
    """
    if not os.environ.keys() & set(_SETTINGS):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
