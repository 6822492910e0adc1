"""Steps that are measured while time remains, and the file that gets their rows."""

from __future__ import annotations

import gc
import logging
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm.auto import tqdm

from aerofuse.common.files import write_json
from aerofuse.common.hardware import OtherWork
from tools.benchmarks.side_by_side import machine
from tools.gpu_evidence.names import OK, OUT_OF_MEMORY, Row

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


@dataclass(frozen=True)
class EvidenceStep:
    """One measurement of about so many seconds on a large GPU; `run` gives its rows."""

    name: str
    seconds: float
    run: Callable[[], Sequence[Row]]


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return what everything runs on, and how busy the GPU is before anything of ours runs on it."""
    return {
        **asdict(machine(device)),
        "timm": version("timm"),
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
        **(_ask_driver(device) if device.type == "cuda" else {}),
    }


def _ask_driver(device: torch.device) -> dict[str, str | None]:
    names = {
        "driver": "driver_version",
        "busy_before_percent": "utilization.gpu",
        "used_before_mib": "memory.used",
        "total_mib": "memory.total",
    }
    program = shutil.which("nvidia-smi")
    if program is None:
        return dict.fromkeys(names)
    query = [f"--query-gpu={','.join(names.values())}", "--format=csv,noheader,nounits", f"--id={device.index or 0}"]
    answer = subprocess.run([program, *query], capture_output=True, text=True).stdout.strip().split(", ")
    return dict(zip(names, answer, strict=True)) if len(answer) == len(names) else dict.fromkeys(names)


@dataclass
class Evidence:
    """The rows of one part. The file is written after every step, so that nothing is lost to a killed process."""

    path: Path
    ran_on: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._other_work = OtherWork()

    def gather(self, steps: Sequence[EvidenceStep], ends: float) -> None:
        """Run the steps that are over by `ends`, in seconds of `time.monotonic`; what fails is a row that says so."""
        for step in tqdm(steps, unit="step", disable=None):
            if time.monotonic() + step.seconds > ends:
                self.left_out.append(step.name)
            else:
                started = time.perf_counter()
                rows, outcome = attempt(step.run)
                if outcome not in (OK, OUT_OF_MEMORY):
                    self.failed.append(step.name)
                self.rows += rows or [{"step": step.name, "outcome": outcome}]
                logger.info("%s: %s, %.0f s", step.name, outcome, time.perf_counter() - started)
            self._save()

    def _save(self) -> None:
        # The share of the CPUs' time that other programs took meanwhile.
        ran_on = self.ran_on | {"cpu_busy_elsewhere": self._other_work.share()}
        write_json(self.path, {"ran_on": ran_on, "left_out": self.left_out, "rows": self.rows})


def attempt(call: Callable[[], Result]) -> tuple[Result | None, str]:
    """Return what `call` gives and `ok`, or nothing and why not. The device's unused memory is given back."""
    result, outcome = None, OK
    try:
        result = call()
    except torch.OutOfMemoryError:
        outcome = OUT_OF_MEMORY
    except Exception as error:  # minutes of a GPU are rare: the other measurements go on, and the file says what failed
        logger.exception("a measurement failed")
        outcome = f"{type(error).__name__}: {error}".splitlines()[0]
    # Not while the error is handled, for its frames hold the tensors that were too many.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return result, outcome
