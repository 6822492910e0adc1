"""Run a command, and end it when whoever started it is gone: `python -m aerofuse.tuning.supervised COMMAND...`.

Standard input says so: it ends when the other side closes it, be it that process or, after its death, the system. A
killed worker so leaves no training behind that would go on without it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress

import psutil

_GRACE_S = 20.0  # for a training to save its state


def main(command: Sequence[str]) -> int:
    """Return the exit status of the command; 130 where it was ended."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a command inherits that it is ignored
    process = psutil.Popen(command, stdin=subprocess.DEVNULL)
    ended = threading.Event()

    def wait_for_the_end() -> None:
        while os.read(sys.stdin.fileno(), 1024):  # not buffered: at exit, Python waits for the lock of a buffer
            pass
        ended.set()
        end_tree(process)

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    status = process.wait()  # none where the other thread has waited first
    return 130 if ended.is_set() else int(status)


def end_tree(process: psutil.Process, grace_s: float = _GRACE_S) -> None:
    """Interrupt a process and all that it has started, as Ctrl-C does; kill what stays."""
    with suppress(psutil.NoSuchProcess):
        tree = [process, *process.children(recursive=True)]
        for one in tree:
            with suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGINT)
        for one in psutil.wait_procs(tree, timeout=grace_s)[1]:
            with suppress(psutil.NoSuchProcess):
                one.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
