"""Where runs go, and what may be said of it: an address can hold a password."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

_EXTRAS = {"psycopg2": "postgresql"}  # what a store needs: the extra that has it
# Of a query: what says which server it is, and a name that is known, be it of a secret.
_SHOWN = ("host", "port", "dbname", "service", "sslmode", "charset")
_NAMED = re.compile(rf"[?&](?:{'|'.join(_SHOWN)}|\w*(?:user|uid|pass|pwd|token|secret|key|auth)\w*)=", re.IGNORECASE)
_NO_PORT = re.compile(r"[^/]*:(?!\d*(?:/|$))")  # what follows the colon is no port


def tracking_uri(root: Path) -> str:
    """Return `MLFLOW_TRACKING_URI`, or the SQLite store in `root` where that is not set."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(root / 'mlflow.db').as_posix()}"


def hide_password(uri: str) -> str:
    """Return an address without user and password, in front of the host or in the query: with `***` in their places.

    It still tells one server from another. See `_split`.
    """
    return _split(uri)[0]


def _split(uri: str) -> tuple[str, list[str]]:
    """Return an address with `***`, and what that stands for.

    The clients' parsers (sqlalchemy's, urllib's) disagree about a password that holds `/`, `?`, `#`, `@`, `&` or a
    blank without an escape, and take a part of it for a host or a database. So what any of them might take for a part
    of a user or a password is hidden, rather too much than too little: all up to the last `@`, and of a query all
    but `_SHOWN`.
    """
    scheme, mark, rest = uri.partition("://")
    if not mark:
        scheme, rest = "", uri
    if rest.startswith("/") and "?" not in rest:
        return uri, []  # a file
    # A query has a name that is known, or follows the last @; any other ? is a part of the password.
    if named := _NAMED.search(rest):
        start = max(rest.rfind("?", 0, named.start() + 1), 0)
    else:
        start = rest.find("?", rest.rfind("@") + 1)
    prefix, query = (rest, None) if start < 0 else (rest[:start], rest[start + 1 :])
    user, at, place = prefix.rpartition("@")
    if query is not None and not at and "@" in query and _NO_PORT.match(prefix):
        return f"{scheme}{mark}***", [rest]  # a password that looks like a query
    shown, hidden = f"{scheme}{mark}{'***@' if at else ''}{place}", [user]
    items = []
    for item in [] if query is None else query.split("&"):
        name, _, value = item.partition("=")
        if name in _SHOWN and "@" not in value:
            items.append(item)
        else:
            items.append(f"{name}=***" if _NAMED.fullmatch(f"?{name}=") else "***")
            hidden.append(value if _NAMED.fullmatch(f"?{name}=") else item)
    return shown + ("" if query is None else f"?{'&'.join(items)}"), [text for text in hidden if text]


def advice(uri: str) -> str:
    """Return what to do about a password that parsers cut in pieces; nothing where no password is of that kind."""
    odd = any(re.search(r"[@/?#&\s]", text) for text in _split(uri)[1])
    return "; in MLFLOW_TRACKING_URI a password is written with escapes, such as %40 for @ and %2F for /" if odd else ""


def summary(error: BaseException) -> str:
    """Return what went wrong in one line, without a password or a piece of one: of the network's errors the first."""
    first = error
    while (earlier := first.__cause__ or first.__context__) is not None:
        first = earlier
    if isinstance(first, OSError):
        error = first
    text = f"{type(error).__name__}: {error}"
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        shown, hidden = _split(uri)
        text = shown.join(_without(part, hidden) for part in text.replace(uri, shown).split(shown))
    words = re.split(r"(\s+)", text.splitlines()[0])  # other addresses, which have no blank, stand between them
    text = "".join(hide_password(word) if "://" in word else word for word in words)[:300]
    if isinstance(first, ModuleNotFoundError) and first.name in _EXTRAS:
        return f"{text}: pip install 'aerofuse[{_EXTRAS[first.name]}]'"
    # MLflow's names for 401 and 403.
    if getattr(error, "error_code", None) in {"UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED", "PERMISSION_DENIED"}:
        return f"this user or password is not admitted ({text})"
    return text


def _without(text: str, hidden: list[str]) -> str:
    """Return a text without any whole word of what is hidden, as it stands in the address or with its escapes read."""
    words = {word for secret in hidden for word in re.findall(r"\w+", f"{secret} {unquote(secret)}")}
    return re.sub(r"\w+", lambda found: "***" if found[0] in words else found[0], text)
