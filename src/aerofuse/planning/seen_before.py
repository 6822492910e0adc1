"""Kinds of units that were profiled before: in this process, or by an earlier one, which left a small file.

A profile is one of a structure, a layout of inputs, a precision, and the code that runs. Times that were measured
belong to the machine and to what else it did at that moment: so it is also one of a device and a number of threads.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch

import aerofuse
from aerofuse.checkpointing.chain import Unit, modules_of
from aerofuse.common.files import write_atomically
from aerofuse.planning.clocks import UnitSeconds
from aerofuse.planning.unit_bytes import UnitBytes
from aerofuse.planning.unit_costs import UnitPolicy, UnitProfile

logger = logging.getLogger(__name__)

# Names the folder of the files; empty where there are to be none. By default it is below the user's caches.
FOLDER_VARIABLE = "AEROFUSE_PROFILES"
_MOST_FILES = 2000  # some 2 kB each
_PLANNERS_CODE = ("checkpointing", "memory", "planning")

_seen: dict[Hashable, UnitProfile] = {}
_keeps_files = True


def seen_before(key: Hashable, unit: Unit, profile: Callable[[], UnitProfile]) -> UnitProfile:
    """Return what `profile` returns for units such as this one, or has returned for an equal `key` before."""
    if key not in _seen:
        path = _path_of(key, unit)
        found = None if path is None else _read(path)
        if found is None:
            found = profile()
            if path is not None:
                _write(path, found)
        _seen[key] = found
    return _seen[key]


@contextmanager
def nothing_seen_before() -> Iterator[None]:
    """Profile everything anew in this context, and keep nothing of it."""
    global _seen, _keeps_files
    before = _seen, _keeps_files
    _seen, _keeps_files = {}, False
    try:
        yield
    finally:
        _seen, _keeps_files = before


def _path_of(key: Hashable, unit: Unit) -> Path | None:
    """Return the file of a profile, `None` where there are none or where nothing tells when code has changed."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    code = _code_of({kind for module in modules_of([unit]) for kind in type(module).__mro__})
    if chosen == "" or code is None or not _keeps_files:
        return None
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(chosen) if chosen else caches / "aerofuse" / "profiles"
    content = repr((key, torch.__version__, _code_of_planners(), code))
    return folder / f"{hashlib.sha256(content.encode()).hexdigest()[:32]}.json"


def _code_of(classes: Iterable[type]) -> list[str] | None:
    """Return digests of the files that define these classes, `None` where more than a file defines one of them."""
    names = {kind.__module__ for kind in classes if kind is not object}
    files = [getattr(sys.modules.get(name), "__file__", None) for name in names]
    if None in files or any("<locals>" in kind.__qualname__ for kind in classes):
        return None
    return sorted(_digest(Path(file)) for file in files if file is not None)


@cache
def _code_of_planners() -> list[str]:
    package = Path(aerofuse.__file__).parent
    return [_digest(file) for name in _PLANNERS_CODE for file in sorted((package / name).glob("*.py"))]


@cache
def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _read(path: Path) -> UnitProfile | None:
    """Return what `_write` wrote, `None` where there is nothing of that kind."""
    try:
        content = json.loads(path.read_bytes())
        seconds, policies = UnitSeconds(**content.pop("seconds")), tuple(map(_policy, content.pop("policies")))
        return UnitProfile(**content, seconds=seconds, policies=policies)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("%s is not used, for it is no profile of a unit (%r)", path, error)
        return None


def _policy(content: dict[str, Any]) -> UnitPolicy:
    save = content.pop("save")
    counted = UnitBytes(**content.pop("bytes"))
    return UnitPolicy(**content, bytes=counted, save=None if save is None else tuple(save))


def _write(path: Path, profile: UnitProfile) -> None:
    try:
        write_atomically(path, json.dumps(asdict(profile)).encode())
        _remove_oldest(path.parent)
    except OSError as error:
        logger.warning("profiles of units are not kept: %s", error)


def _remove_oldest(folder: Path) -> None:
    """Keep the newest files, while other processes may do the same."""
    ages: list[tuple[int, Path]] = []
    for file in folder.glob("*.json"):
        with suppress(FileNotFoundError):  # another process has removed it meanwhile
            ages.append((file.stat().st_mtime_ns, file))
    for _, file in sorted(ages)[:-_MOST_FILES]:
        file.unlink(missing_ok=True)
