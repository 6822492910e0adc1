"""A Python of its own for a test: what is imported, and which operators exist, is settled once per process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.imports import ROOT


def with_this_source() -> dict[str, str]:
    """The environment for a Python that imports the same `aerofuse`."""
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}


def check_in_new_python(code: str, folder: Path | None = None) -> None:
    """Run `code`, in `folder` where given; an assertion in it that fails, or any other error, fails here."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=with_this_source(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
