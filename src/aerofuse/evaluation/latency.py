"""How long one image takes, and on what."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from aerofuse.evaluation.mode import evaluation_mode
from aerofuse.hardware import device_name

_WARM_UP_PASSES = 10  # the first ones allocate memory and choose kernels


@dataclass(frozen=True)
class Latency:
    """Time per image at batch 1, over the timed passes."""

    median_ms: float
    p95_ms: float
    device_name: str


def measure_latency(model: nn.Module, image_size_px: int, device: torch.device, runs: int) -> Latency:
    """Time `runs` passes over one uint8 image `[1, 3, image_size_px, image_size_px]`, from tensor to outputs.

    `model` is on `device`; it is in evaluation mode meanwhile and then as it was. The median and the 95th
    percentile are given because a mean would be at the mercy of whatever else the machine did.
    """
    generator = torch.Generator().manual_seed(0)
    size = (1, 3, image_size_px, image_size_px)
    image = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator).to(device)
    times_ms = []
    with evaluation_mode(model):
        for run in range(_WARM_UP_PASSES + runs):
            _wait_for(device)
            start = time.perf_counter()
            model(image)
            _wait_for(device)
            if run >= _WARM_UP_PASSES:
                times_ms.append(1000 * (time.perf_counter() - start))
    return Latency(float(np.median(times_ms)), float(np.percentile(times_ms, 95)), device_name(device))


def _wait_for(device: torch.device) -> None:
    # Accelerators work in the background: without waiting, only the queueing would be timed.
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
