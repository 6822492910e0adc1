"""The pipeline as a process that can be killed, and what its output tells of it."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_POLL_S = 0.05
_PRODUCTS = ("models/*/model.safetensors", "metrics/**/*.json")
# What says how long things took is not the same twice.
_LEFT_OUT = ("latency", "images_per_second", "gates_")  # one of the gates is a time
_BEGAN = re.compile(r"(?:starting|going on) in epoch (\d+) of \d+(?:, after (\d+) of its (\d+) updates)?")
_EPOCH_ENDED = re.compile(r"^epoch (\d+): ", re.MULTILINE)
_STAGE = re.compile(r"Running stage '([\w@]+)'")


class PipelineError(RuntimeError):
    """`dvc repro` has failed by itself."""


@dataclass(frozen=True)
class Remedy:
    """What a user does when DVC, killed while it was writing, cannot read its own files any more."""

    fault: str
    said: str  # by DVC
    mend: Callable[[Path], object]


def _restore(root: Path, name: str) -> None:
    """As it was committed; a file that never was is removed."""
    if subprocess.run(["git", "restore", name], cwd=root, capture_output=True).returncode:
        (root / name).unlink()


REMEDIES = (
    Remedy(
        "dvc.lock left half written by DVC, restored",
        "dvc.lock' validation failed",
        lambda root: _restore(root, "dvc.lock"),
    ),
    Remedy(
        "lock left half written by DVC, removed",
        "Unable to read RWLock-file",
        lambda root: (root / ".dvc/tmp/rwlock").unlink(),
    ),
)


class Pipeline:
    """A clone in which `dvc repro` runs, as one process group: of everything, or of the `stages` named."""

    def __init__(self, root: Path, *stages: str) -> None:
        self.root = root
        self._command = ["dvc", "repro", *stages]
        self._log = root.parent / f"{root.name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._read_from = 0

    def start(self) -> None:
        """Start, or start again."""
        self._read_from = self._log.stat().st_size if self._log.is_file() else 0
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self.root, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def wait(self, seconds: float) -> bool:
        """Whether it has ended by itself within so many seconds. Raises `PipelineError` where it failed."""
        assert self._process is not None
        deadline = time.monotonic() + seconds
        while self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(min(_POLL_S, max(0.0, deadline - time.monotonic())))
        if self._process.poll() is None:
            return False
        if self._process.returncode:
            raise PipelineError(f"dvc repro ended with status {self._process.returncode}:\n{self.output()[-3000:]}")
        return True

    def kill(self, number: signal.Signals) -> None:
        """Send every process of the pipeline a signal, and wait until dvc has gone."""
        assert self._process is not None
        os.killpg(self._process.pid, number)
        self._process.wait(timeout=60)

    def output(self) -> str:
        """What it has printed since it was started last."""
        with self._log.open("rb") as log:
            log.seek(self._read_from)
            return log.read().decode(errors="replace")

    def where(self) -> tuple[str, float | None]:
        """The stage that runs, and the end of the epoch that it trains; `None` where it has not begun to train."""
        *_, text = ["", *self._stages()]
        stage, began = _STAGE.search(text), _began_at(text)
        if stage is None or began is None:
            return (stage[1] if stage else ""), None
        ended = max((int(epoch) for epoch in _EPOCH_ENDED.findall(text)), default=0)
        return stage[1], max(ended, math.floor(began)) + 1.0

    def went_on_at(self, stage: str) -> float | None:
        """Where a stage began to train, in epochs; `None` where it has not, or not yet."""
        for text in self._stages():
            found = _STAGE.search(text)
            if found and found[1] == stage:
                return _began_at(text)
        return None

    def _stages(self) -> list[str]:
        """What each stage has printed."""
        return re.split(r"(?=Running stage ')", self.output())

    def products(self) -> dict[str, bytes]:
        """The files that must be the same, without the times that are in some."""
        found = {}
        for pattern in _PRODUCTS:
            for path in sorted(self.root.glob(pattern)):
                content = path.read_bytes()
                if path.suffix == ".json":
                    content = json.dumps(_without_times(json.loads(content)), sort_keys=True).encode()
                found[path.relative_to(self.root).as_posix()] = content
        return found


def _began_at(text: str) -> float | None:
    """Where a training began, in epochs; `None` where it has not said so, and so has done nothing yet."""
    if not (found := _BEGAN.search(text)):
        return None
    epoch, made, updates = (int(number or 0) for number in found.groups())
    return epoch - 1 + (made / updates if updates else 0.0)


def _without_times(content: object) -> object:
    if isinstance(content, dict):
        return {
            name: _without_times(value)
            for name, value in content.items()
            if not any(word in name for word in _LEFT_OUT)
        }
    return content
