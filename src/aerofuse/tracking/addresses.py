"""Where runs go, and what may be said of it: an address can hold a password."""

from __future__ import annotations

import os
import re
from pathlib import Path

_EXTRAS = {"psycopg2": "postgresql"}  # what a store needs: the extra that has it


def tracking_uri(root: Path) -> str:
    """Return `MLFLOW_TRACKING_URI`, or the SQLite store in `root` where that is not set."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(root / 'mlflow.db').as_posix()}"


def hide_password(uri: str) -> str:
    """Return an address with `***` for its user and its password, in front of the host or in the query.

    Parsers differ about a password that holds `/`, `?`, `@` or a blank without an escape. So all up to the last `@` is
    hidden: rather too much than a part of a password.
    """
    uri = re.sub(r"([?&][^=&@]*(?:user|pass|token|secret)[^=&@]*=)[^&#]*", r"\1***", uri, flags=re.IGNORECASE)
    return re.sub(r"(?<=://).*@", "***@", uri, flags=re.DOTALL)


def summary(error: BaseException) -> str:
    """Return what went wrong in one line, without a password: of the network's errors the first."""
    first = error
    while (earlier := first.__cause__ or first.__context__) is not None:
        first = earlier
    if isinstance(first, OSError):
        error = first
    text = f"{type(error).__name__}: {error}"
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        text = text.replace(uri, hide_password(uri))
    words = re.split(r"(\s+)", text.splitlines()[0])  # other addresses, which have no blank, stand between them
    text = "".join(hide_password(word) if "://" in word else word for word in words)[:300]
    if isinstance(first, ModuleNotFoundError) and first.name in _EXTRAS:
        return f"{text}: pip install 'aerofuse[{_EXTRAS[first.name]}]'"
    # MLflow's names for 401 and 403.
    if getattr(error, "error_code", None) in {"UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED"}:
        return f"this user or password is not admitted ({text})"
    return text
