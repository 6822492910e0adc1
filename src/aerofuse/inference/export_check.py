"""Compare exported models with the model itself, and time each way to run it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from tqdm import tqdm

from aerofuse.common.hardware import device_name
from aerofuse.inference.export import INPUT, require_onnx
from aerofuse.metrics.latency import Latency, time_passes

TOLERANCE = 1e-4  # of probabilities, and of clarity and block
BATCH_SIZES = (1, 16)
_RUNS_OF_A_BATCH = 10  # a batch takes as long as many single images, and longer times differ less
_PROBABILITIES = "_probabilities"
_LONGEST_REASON = 300  # characters

Outputs = Mapping[str, npt.NDArray[np.float32]]
Run = Callable[[Tensor], Outputs]


@dataclass
class Parity:
    """The differences between a program and the model, over `images` images.

    `max_difference` is the largest of any probability or value; `other_top1` counts the images with another type or
    airline than the model's.
    """

    images: int = 0
    max_difference: float = 0.0
    other_top1: int = 0

    @property
    def same_top1(self) -> float:
        """Return the share of images with the same likeliest classes."""
        return 1 - self.other_top1 / self.images

    def add(self, expected: Outputs, found: Outputs) -> None:
        """Add a batch of outputs."""
        others = np.zeros(len(next(iter(expected.values()))), dtype=bool)
        for name, values in expected.items():
            difference = np.abs(values.astype(np.float64) - found[name])
            # Every comparison with NaN is false, so NaN would pass for no difference.
            self.max_difference = max(self.max_difference, float(np.nan_to_num(difference, nan=np.inf).max()))
            if name.endswith(_PROBABILITIES):
                others |= values.argmax(axis=1) != found[name].argmax(axis=1)
        self.images += len(others)
        self.other_top1 += int(others.sum())


@dataclass
class ExportCheck:
    """Parity by format, latency by way to run and batch size, and the reason for each way that does not run here."""

    device: str
    parity: dict[str, Parity] = field(default_factory=dict)
    latency: dict[str, dict[int, Latency]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def fastest(self, batch_size: int) -> str:
        """Return the way to run that takes the least time for a batch of that size."""
        return min(self.latency, key=lambda way: self.latency[way][batch_size].median_ms)

    def metrics(self) -> dict[str, float]:
        """Return what is the same on every run: no times, and no digit that another machine would change."""
        found: dict[str, float] = {}
        for name, parity in self.parity.items():
            found[f"{name}_images"] = parity.images
            found[f"{name}_max_difference"] = float(f"{parity.max_difference:.1g}")
            found[f"{name}_same_top1"] = parity.same_top1
        return found

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "device": self.device,
            "tolerance": TOLERANCE,
            "parity": {name: asdict(parity) | {"same_top1": parity.same_top1} for name, parity in self.parity.items()},
            "latency_ms": {
                way: {str(size): {"median": found.median_ms, "p95": found.p95_ms} for size, found in sizes.items()}
                for way, sizes in self.latency.items()
            },
            "failed": self.failed,
            "fastest_by_latency": {str(size): self.fastest(size) for size in BATCH_SIZES},
        }

    def require_parity(self) -> None:
        """Check the differences. Raises `ValueError` where a program differs by more than `TOLERANCE`."""
        for name, parity in self.parity.items():
            if not parity.max_difference <= TOLERANCE:
                raise ValueError(
                    f"the model exported as {name} differs from it by up to {parity.max_difference:.2g}, and says "
                    f"another class for {parity.other_top1} of {parity.images} images; {TOLERANCE:g} is allowed"
                )


def check_export(
    model: nn.Module,
    files: Mapping[str, Path],
    images: Iterable[Tensor],
    image_size_px: int,
    runs: int,
    *,
    compiled: bool,
) -> ExportCheck:
    """Compare the files of an `Exported` model with it on batches of `images`, uint8 `[B, 3, H, W]`, and time them.

    `files` has `onnx` and `torch`. Everything runs on the CPU, with the same number of threads. `compiled` times
    torch.compile too, which needs a C++ compiler; where it fails, the result says why.
    """
    eager = torch_runner(model)
    runners = {"onnx": onnx_runner(files["onnx"]), "torch": torch_runner(torch.export.load(files["torch"]).module())}
    check = ExportCheck(device_name(torch.device("cpu")), {name: Parity() for name in runners})
    for batch in tqdm(images, desc="comparing", leave=False, disable=None):
        expected = eager(batch)
        for name, run in runners.items():
            check.parity[name].add(expected, run(batch))
    ways = {"torch eager": eager, "torch .pt2": runners["torch"], "ONNX Runtime": runners["onnx"]}
    if compiled:
        ways["torch.compile"] = torch_runner(torch.compile(model))
    for way, run in ways.items():
        try:
            check.latency[way] = {
                size: time_passes(run, image_size_px, torch.device("cpu"), number, batch_size=size)
                for size, number in zip(BATCH_SIZES, (runs, min(runs, _RUNS_OF_A_BATCH)), strict=True)
            }
        except (TorchDynamoException, RuntimeError) as error:
            if way != "torch.compile":
                raise
            check.failed[way] = " ".join(str(error).split())[:_LONGEST_REASON]
    return check


def torch_runner(module: Callable[[Tensor], Mapping[str, Tensor]]) -> Run:
    """Return a function that runs a module or a loaded program."""

    def run(images: Tensor) -> Outputs:
        with torch.inference_mode():
            return {name: output.numpy() for name, output in module(images).items()}

    return run


def onnx_runner(path: Path) -> Run:
    """Return a function that runs an ONNX file, with as many threads as torch has.

    Raises `ValueError` where ONNX is not installed.
    """
    require_onnx()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(images: Tensor) -> Outputs:
        return dict(zip(names, session.run(names, {INPUT: images.numpy()}), strict=True))

    return run
