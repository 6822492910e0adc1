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
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from ruamel.yaml import YAML

from aerofuse.common.files import write_atomically
from aerofuse.common.params import load_value

DVC_FILE = Path("dvc.yaml")
_LENGTH = 16  # of the key, in hexadecimal digits
_LEFT_OUT = ("__pycache__",)


def find_training_key(stage: str, **found: object) -> str:
    """Equal for two trainings of a stage that give the same model, whatever happens to them on the way.

    What the stage depends on by dvc.yaml, file by file, its parameters as resolved now, and what was `found` before
    training, as the batch size. Raises `FileNotFoundError` for a dependency that is not there, and `ValueError` where
    dvc.yaml has no such stage.
    """
    content = YAML(typ="safe").load(DVC_FILE.read_text(encoding="utf-8"))
    if stage not in content["stages"]:
        raise ValueError(f"{DVC_FILE} has no stage {stage!r}")
    definition = content["stages"][stage]
    digest = hashlib.sha256(json.dumps(found, sort_keys=True, default=str).encode())
    for name in definition["params"]:
        value = load_value(Any, name.replace("${recipe}", "{recipe}"))
        digest.update(json.dumps([name, value], sort_keys=True, default=str).encode())
    for name in definition["deps"]:
        for path in _files(Path(name)):
            digest.update(path.as_posix().encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:_LENGTH]


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from sorted(file for file in path.rglob("*") if file.is_file() and not set(_LEFT_OUT) & set(file.parts))
    elif path.is_file():
        yield path
    else:
        raise FileNotFoundError(f"{path}, which {DVC_FILE} says that the stage depends on, is not there")


logger = logging.getLogger(__name__)

_KEPT_STATES = 2  # the latest, and the one before in case the latest is damaged
_KEPT_TRAININGS = 3  # that have not ended, per stage: an interrupted sweep finds what it began
_LOCK = "lock"
_BEST = "best"
_ENDED = "ended"


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
            lock = FileLock(path / _LOCK)
            try:
                with lock.acquire(timeout=0):
                    shutil.rmtree(path, ignore_errors=True)
            except Timeout:
                continue

    def _files(self) -> list[Path]:
        return sorted(self.path.glob("state-*.pt"), key=_number)


def _number(path: Path) -> int:
    return int(path.stem.split("-")[1])
