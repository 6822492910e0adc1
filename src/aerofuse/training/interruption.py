"""SIGTERM and Ctrl-C: a training first saves what it has, then leaves."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class InterruptedTraining(SystemExit):  # no error: whoever sent the signal wanted it
    """Told to stop by a signal; ends the process with the status that shells have for it."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


class Interruption:
    """Whether somebody has asked the training to stop.

    Inside `watch` a first signal is noted, to be asked for where it suits; a second one, or a first one inside
    `at_once`, stops right there.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._at_once = False
        self._process = os.getpid()

    @property
    def is_requested(self) -> bool:
        """Whether a signal has come."""
        return self._number is not None

    def check(self) -> None:
        """Raises `InterruptedTraining` where a signal has come."""
        if self._number is not None:
            self.leave()

    def leave(self) -> NoReturn:
        """Raises `InterruptedTraining`, also where it is another process that was told to stop."""
        raise InterruptedTraining(self._number or signal.SIGTERM)

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Note signals from here on; in a thread other than the main one, where Python hears none, do nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Where nothing is lost: a signal stops what runs here."""
        self.check()
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            # A process that loads photos was born with this handler. It dies with its parent, or when told to.
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        again, self._number = self.is_requested, number
        if again or self._at_once:
            raise InterruptedTraining(number)
        logger.warning("%s: the training saves its state and stops", signal.Signals(number).name)
