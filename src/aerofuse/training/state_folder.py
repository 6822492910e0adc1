"""Where the state of a training is kept, so that it can go on after anything.

`$DVC_ROOT/.resume/<stage>/<key>/`, ignored by git and by DVC, which deletes outputs before a stage runs and checks
committed ones out over what an interrupted experiment left. The key covers parameters, code and data: a training
that would give something else finds no state.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from aerofuse.common.files import write_atomically

logger = logging.getLogger(__name__)

_KEPT_STATES = 2  # the latest, and the one before in case the latest is damaged
_KEPT_TRAININGS = 3  # that have not ended, per stage: an interrupted sweep finds what it began
_LOCK = "lock"
_BEST = "best"
_ENDED = "ended"


def training_key(settings: object, inputs: Iterable[Path]) -> str:
    """Return a key that is equal for two trainings that give the same model, whatever happens to them on the way.

    It covers `settings`, the bytes of the files in `inputs` (folders stand for all files in them), and our own modules
    that this process has imported by now. Raises `FileNotFoundError` for an input that is not there.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, path in [*_files(inputs), *_modules()]:
        digest.update(name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _files(inputs: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    for path in inputs:
        if not path.exists():
            raise FileNotFoundError(f"{path}, which the training starts from, is not there; `dvc repro` makes it")
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        yield from ((file.as_posix(), file) for file in files)


def _modules() -> Iterator[tuple[str, Path]]:
    """By name: an experiment imports the same modules from a copy of the repository."""
    for name, module in sorted(sys.modules.items()):
        if name.partition(".")[0] in ("aerofuse", "stages") and getattr(module, "__file__", None):
            yield name, Path(str(module.__file__))


class StateInUseError(ConnectionError):
    """Another process uses the same state."""


class StateFolder:
    """The saved states of one training, its best model so far, and a lock against a second process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def best_model(self) -> Path:
        """Return the folder of the best model so far; the stage copies it to its output at the end."""
        return self.path / _BEST

    @contextmanager
    def locked(self, timeout_s: float = 10.0) -> Iterator[None]:
        """Lock the folder. Raises `StateInUseError` where another process holds it."""
        self.path.mkdir(parents=True, exist_ok=True)
        owner = self.path / "owner"
        lock = FileLock(self.path / _LOCK)
        try:
            lock.acquire(timeout=timeout_s)
        except Timeout:
            who = owner.read_text(encoding="utf-8") if owner.is_file() else "unknown"
            raise StateInUseError(
                f"another process ({who}) is training this very model; wait for it, or stop it: its state is kept"
            ) from None
        try:
            owner.write_text(f"process {os.getpid()}", encoding="utf-8")
            yield
        finally:
            lock.release()

    def save(self, state: dict[str, Any]) -> float:
        """Save a state, whole or not at all, and return the seconds that it took.

        An `OSError`, such as a full disk, gives a warning, and the state before stays.
        """
        started = time.perf_counter()
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getbuffer()  # no copy: a state may be gigabytes
        number = 1 + max((_number(path) for path in self._files()), default=0)
        path = self.path / f"state-{number:06d}-{hashlib.sha256(content).hexdigest()}.pt"
        try:
            write_atomically(path, content)
            for old in self._files()[:-_KEPT_STATES]:
                old.unlink()
        except OSError as error:
            logger.warning("the training goes on, but its state could not be saved and the one before stays: %s", error)
        return time.perf_counter() - started

    def load(self) -> dict[str, Any] | None:
        """Return the latest state that is not damaged, `None` where there is none."""
        for path in reversed(self._files()):
            try:
                content = path.read_bytes()
            except OSError as error:
                logger.warning("%s cannot be read: %s", path, error)
                continue
            if hashlib.sha256(content).hexdigest() != path.stem.rpartition("-")[2]:
                logger.warning("%s is damaged; trying the one before", path)
                continue
            state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            return state
        return None

    def end(self) -> None:
        """Mark the training as ended: its outputs are written. The last state stays, in case dvc is killed."""
        (self.path / _ENDED).touch()
        for old in self._files()[:-1]:
            old.unlink()

    def forget_others(self) -> None:
        """Remove the states of other trainings of this stage: those that have ended, and all but the latest few."""
        others = [path for path in self.path.parent.iterdir() if path.is_dir() and path != self.path]
        others.sort(key=lambda path: (not (path / _ENDED).exists(), path.stat().st_mtime), reverse=True)
        for number, path in enumerate(others):
            if number < _KEPT_TRAININGS - 1 and not (path / _ENDED).exists():
                continue
            with suppress(Timeout), FileLock(path / _LOCK, timeout=0):
                shutil.rmtree(path, ignore_errors=True)

    def _files(self) -> list[Path]:
        return sorted(self.path.glob("state-*.pt"), key=_number)


def _number(path: Path) -> int:
    return int(path.stem.split("-")[1])
