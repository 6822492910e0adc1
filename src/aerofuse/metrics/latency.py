"""Latency: how long a model takes for an image, and on which device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from aerofuse.common.hardware import OtherWork, device_name, seconds_of
from aerofuse.models.aircraft_model import evaluation_mode

_WARM_UP_PASSES = 10  # the first passes allocate memory and choose kernels


@dataclass(frozen=True)
class Latency:
    """Time per pass in ms, median and 95th percentile; `busy_elsewhere` is `OtherWork.share` meanwhile."""

    median_ms: float
    p95_ms: float
    device_name: str
    busy_elsewhere: float


def measure_latency(model: nn.Module, image_size_px: int, device: torch.device, runs: int) -> Latency:
    """Time `runs` passes of a model over one image, in evaluation mode; `model` is on `device`."""
    with evaluation_mode(model):
        return time_passes(model, image_size_px, device, runs)


def time_passes(
    run: Callable[[Tensor], object], image_size_px: int, device: torch.device, runs: int, *, batch_size: int = 1
) -> Latency:
    """Time `runs` calls of `run` with uint8 images `[batch_size, 3, image_size_px, image_size_px]`.

    A mean would depend on what else the machine did; the median hardly does.
    """
    generator = torch.Generator().manual_seed(0)
    size = (batch_size, 3, image_size_px, image_size_px)
    images = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator).to(device)
    times_ms = []
    other_work = OtherWork()
    for number in range(_WARM_UP_PASSES + runs):
        seconds = seconds_of(lambda: run(images), device)
        if number >= _WARM_UP_PASSES:
            times_ms.append(1000 * seconds)
    median_ms, p95_ms = np.percentile(times_ms, (50, 95)).tolist()
    return Latency(median_ms, p95_ms, device_name(device), other_work.share())
