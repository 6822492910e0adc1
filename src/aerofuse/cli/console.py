"""The console of a command, which may not be able to show every character."""

from __future__ import annotations

import io
import sys


def escape_what_stdout_cannot_show() -> None:
    """Have stdout write `\\U0001f6e9` for a character that its encoding lacks, instead of ending half way."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
