"""Where runs go, and what may be said of it: an address can hold a password."""

from __future__ import annotations

import os
import re
from pathlib import Path

_NOT_ADMITTED = {"UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED"}  # MLflow's names for 401 and 403

_EXTRAS = {"psycopg2": "postgresql"}  # what a store needs: the extra that has it


def tracking_uri(root: Path) -> str:
    """Return `MLFLOW_TRACKING_URI`, or the SQLite store in `root` where that is not set."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(root / 'mlflow.db').as_posix()}"


def hide_password(text: str) -> str:
    """Return `text` with `***` for the user and the password of every address in it."""
    return re.sub(r"(?<=://)[^/@\s]+@", "***@", text)


def summary(error: BaseException) -> str:
    """Return what went wrong in one line, without a password: of the network's errors the first."""
    first = error
    while (earlier := first.__cause__ or first.__context__) is not None:
        first = earlier
    if isinstance(first, OSError):
        error = first
    text = hide_password(f"{type(error).__name__}: {error}".splitlines()[0])[:300]
    if isinstance(first, ModuleNotFoundError) and first.name in _EXTRAS:
        return f"{text}: pip install 'aerofuse[{_EXTRAS[first.name]}]'"
    if getattr(error, "error_code", None) in _NOT_ADMITTED:
        return f"this user or password is not admitted ({text})"
    return text
