"""Chains that were profiled before: in this process, or by an earlier one, which left a small file.

A profile is one of a structure, a layout of inputs, a precision, and the code that runs. Times that were measured
belong to the machine and to what else it did at that moment: so it is also one of a device and a number of threads.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

import aerofuse
from aerofuse.checkpointing.chain import Chain, modules_of
from aerofuse.checkpointing.snapshot import Autocast
from aerofuse.common.files import write_atomically
from aerofuse.common.hardware import device_name
from aerofuse.planning.clocks import Stopwatch
from aerofuse.planning.profiling import Cast, ChainProfile, UnitPolicy, UnitProfile, profile_chain, unit_signature
from aerofuse.planning.unit_bytes import TensorLike

logger = logging.getLogger(__name__)

# Names the folder of the files; empty where there are to be none. By default it is below the user's caches.
FOLDER_VARIABLE = "AEROFUSE_PROFILES"
_MOST_FILES = 200  # some 30 kB each
_PLANNERS_CODE = ("checkpointing", "memory", "planning")

_seen: dict[Hashable, ChainProfile] = {}


def profile_once(
    fake: Chain, real: Chain, layouts: Sequence[TensorLike], stopwatch: Stopwatch, autocast: Cast, offload: bool = False
) -> ChainProfile:
    """Return the profile of a chain, as `profile_chain` does, or as it did for an equal one."""
    structure = tuple((unit.name, unit_signature(unit)) for unit in fake)
    with autocast():
        casts = Autocast.capture(layouts[0].device)
    key = (structure, tuple(layouts), stopwatch, casts, device_name(layouts[0].device), offload)
    if key not in _seen:
        path = _path_of(key, modules_of(fake))
        profile = None if path is None else _read(path)
        if profile is None:
            profile = profile_chain(fake, real, layouts, stopwatch, autocast, offload)
            if path is not None:
                _write(path, profile)
        _seen[key] = profile
    return _seen[key]


@contextmanager
def nothing_seen_before() -> Iterator[None]:
    """Profile everything anew in this context, and keep nothing of it."""
    seen, folder = dict(_seen), os.environ.get(FOLDER_VARIABLE)
    _seen.clear()
    os.environ[FOLDER_VARIABLE] = ""
    try:
        yield
    finally:
        _seen.clear()
        _seen.update(seen)
        del os.environ[FOLDER_VARIABLE]
        if folder is not None:
            os.environ[FOLDER_VARIABLE] = folder


def _path_of(key: Hashable, modules: Iterable[nn.Module]) -> Path | None:
    """Return the file of a profile, `None` where there are none or where nothing tells when code has changed."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    code = _code_of({kind for module in modules for kind in type(module).__mro__})
    if chosen == "" or code is None:
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


def _read(path: Path) -> ChainProfile | None:
    """Return what `_write` wrote, `None` where there is nothing of that kind."""
    try:
        content = json.loads(path.read_bytes())
        kinds = [_unit(kind) for kind in content["kinds"]]
        units = tuple(replace(kinds[index], name=name) for name, index in content["units"])
        return ChainProfile(units, tuple(content["starts"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        logger.warning("%s is not used, for it is no profile of units (%r)", path, error)
        return None


def _unit(content: dict[str, Any]) -> UnitProfile:
    policies = tuple(map(_policy, content.pop("policies")))
    offloaded = content.pop("offloaded")
    return UnitProfile(**content, policies=policies, offloaded=offloaded and _policy(offloaded))


def _policy(content: dict[str, Any]) -> UnitPolicy:
    return UnitPolicy(**{**content, "save": None if content["save"] is None else tuple(content["save"])})


def _write(path: Path, profile: ChainProfile) -> None:
    kinds: dict[UnitProfile, int] = {}
    units = [(unit.name, kinds.setdefault(replace(unit, name=""), len(kinds))) for unit in profile.units]
    content = {"starts": profile.starts, "units": units, "kinds": [asdict(kind) for kind in kinds]}
    try:
        write_atomically(path, json.dumps(content).encode())
        files = sorted(path.parent.glob("*.json"), key=lambda file: file.stat().st_mtime)
        for file in files[:-_MOST_FILES]:
            file.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("profiles of units are not kept: %s", error)
