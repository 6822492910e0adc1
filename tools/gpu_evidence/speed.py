"""How fast the hybrid is: in training beside timm's two networks in series, and for one image."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from aerofuse.backbones.backbone import create_backbone
from aerofuse.common.hardware import seconds_of
from aerofuse.memory.step import Precision, sum_of_outputs
from aerofuse.metrics.latency import time_passes
from aerofuse.models.aircraft_model import Normalise, evaluation_mode
from aerofuse.models.architecture import EXAMPLE_CLASSES
from tools.gpu_evidence.names import HYBRID, IN_SERIES, Row
from tools.gpu_evidence.sizes import EvidenceSizes

_WARM_UP_STEPS = 3
_STEPS_PER_ROUND = 4
_PASSES_PER_ROUND = 20


@dataclass(frozen=True)
class How:
    """How a network is run."""

    name: str
    precision: Precision = "bf16"
    channels_last: bool = False
    compiled: bool = False

    def prepare(self, model: nn.Module, compiler: str) -> nn.Module:
        """Return the module to call."""
        if self.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
        return torch.compile(model, backend=compiler) if self.compiled else model  # type: ignore[return-value]


TRAINING = (How("eager"), How("channels_last", channels_last=True), How("compiled", channels_last=True, compiled=True))
INFERENCE = (How("eager, float32", "float32"), How("eager, bf16"), How("compiled, bf16", compiled=True))


class NetworksInSeries(nn.Module):
    """Networks of timm that see the same uint8 images `[B, 3, H, W]` one after the other, each with a classifier."""

    def __init__(self, sizes: EvidenceSizes) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.networks = nn.ModuleDict()
        for branch in ("cnn", "transformer"):
            backbone = create_backbone(
                sizes.recipe["backbones"][branch],
                image_size_px=sizes.image_size_px,
                drop_path=sizes.recipe["backbones"]["drop_path"],
            )
            classifier = nn.Linear(backbone.num_features, len(EXAMPLE_CLASSES.types))
            self.networks[branch] = nn.Sequential(backbone.model, classifier)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the logits of each."""
        normalised = self.normalise(images)
        return {branch: network(normalised) for branch, network in self.networks.items()}


def throughput_rows(sizes: EvidenceSizes, how: How) -> list[Row]:
    """Train the hybrid and timm's two networks in turn, forward, backward and AdamW, and take the medians."""
    models = {HYBRID: sizes.build_hybrid(), IN_SERIES: NetworksInSeries(sizes).to(sizes.device).train()}
    steps = {name: _training_step(model, sizes, how) for name, model in models.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(_WARM_UP_STEPS + _STEPS_PER_ROUND * sizes.rounds):
        for name, step in steps.items():
            elapsed = seconds_of(step, sizes.device)
            if number >= _WARM_UP_STEPS:
                seconds[name].append(elapsed)
    return [asdict(how) | _speed(name, sizes.throughput_batch, seconds[name]) for name in steps]


def _training_step(model: nn.Module, sizes: EvidenceSizes, how: How) -> Callable[[], None]:
    size = (sizes.throughput_batch, 3, sizes.image_size_px, sizes.image_size_px)
    images = torch.randint(0, 256, size, dtype=torch.uint8, device=sizes.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    called = how.prepare(model, sizes.compiler)

    def step() -> None:
        with _autocast(sizes, how):
            outputs = called(images)
        sum_of_outputs(outputs).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _speed(network: str, batch: int, seconds: list[float]) -> dict[str, Any]:
    low, middle, high = statistics.quantiles(seconds, n=4)
    return {
        "network": network,
        "batch": batch,
        "images_per_second": batch / middle,
        "seconds": middle,
        "seconds_low": low,
        "seconds_high": high,
        "steps": len(seconds),
    }


def latency_rows(sizes: EvidenceSizes, how: How) -> list[Row]:
    """Time the hybrid on one image, in evaluation mode."""
    model = sizes.build_hybrid()
    with evaluation_mode(model):
        called = how.prepare(model, sizes.compiler)

        def run(images: Tensor) -> object:
            with _autocast(sizes, how):
                return called(images)

        latency = time_passes(run, sizes.image_size_px, sizes.device, _PASSES_PER_ROUND * sizes.rounds)
    return [asdict(how) | {"network": HYBRID, "median_ms": latency.median_ms, "p95_ms": latency.p95_ms}]


def _autocast(sizes: EvidenceSizes, how: How) -> torch.autocast:
    return torch.autocast(sizes.device.type, torch.bfloat16, enabled=how.precision == "bf16")
