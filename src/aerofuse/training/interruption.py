"""Interruption by SIGTERM or Ctrl-C: a training first saves its state, then stops."""

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


class InterruptedTraining(SystemExit):  # not an error: the sender of the signal wanted it
    """A signal asked the training to stop; the process ends with the status that shells use for that signal."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


class Interruption:
    """Note signals that ask the training to stop.

    Inside `watch` a first signal is noted, and the training asks for it when it can stop. A second signal, or a first
    one inside `at_once`, stops it immediately.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._at_once = False
        self._process = os.getpid()

    @property
    def is_requested(self) -> bool:
        """Return whether a signal has come."""
        return self._number is not None

    def leave(self) -> NoReturn:
        """Raise `InterruptedTraining`, also where only another process was asked to stop."""
        raise InterruptedTraining(self._number or signal.SIGTERM)

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Note signals inside the block; outside the main thread, where Python receives none, do nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let a signal stop the block immediately, because nothing can be lost in it."""
        if self.is_requested:
            self.leave()
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            # A forked worker that loads photos inherits this handler. It ends with its parent, or on SIGTERM.
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        again, self._number = self.is_requested, number
        if again or self._at_once:
            raise InterruptedTraining(number)
        logger.warning("%s: the training saves its state and stops", signal.Signals(number).name)
