"""What gradient checkpointing saves and costs, for every family: `make benchmark`.

Peaks are counted on fake tensors. Times are real steps, all ways of a family side by side: every round runs each of
them once, and a ratio is the median over the rounds. `reports/benchmarks/` gets a table named by what it ran on, and
`make readme` puts it into docs/checkpointing.md.
"""

from __future__ import annotations

import argparse
import datetime
import logging
import re
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from tqdm.auto import tqdm

from aerofuse.arguments import one_of
from aerofuse.backbones.backbone import Backbone
from aerofuse.backbones.create import create_backbone
from aerofuse.backbones.families import FAMILIES
from aerofuse.checkpointing.budgets import Budget
from aerofuse.checkpointing.model_plan import CheckpointingPlan
from aerofuse.checkpointing.planner import Planner
from aerofuse.checkpointing.simulation import PlanCost
from aerofuse.checkpointing.timing import Measured
from aerofuse.hardware import device_name
from aerofuse.memory.step import count_training_step

FOLDER = Path("reports/benchmarks")
# Drop-path on, as in training: it adds operations.
DROP_PATH = 0.1
# What the system that this one replaces promised to save.
PROMISED = {
    "resnet": "30-40 %",
    "mobilenet": "25-35 %",
    "efficientnet": "30-40 %",
    "efficientnetv2": "30-40 %",
    "regnet": "30-40 %",
    "vit": "40-50 %",
    "swin": "40-50 %",
    "swin3d": "40-50 %",
    "maxvit": "40-50 %",
    "convnext": "35-45 %",
}
OURS: Mapping[str, Mapping[str, Any]] = {
    "keep_dear": {"policy": "keep_dear"},
    "recompute_all": {"policy": "recompute_all"},
    "segments=4": {"segments": 4},
}
UNCHECKED, SWITCH = "unchecked", "timm's switch"
# Planned to hold no more than another way, half of what is held without checkpointing, or as little as possible.
AT_SWITCH, AT_SEGMENTS = "planned at the switch's peak", "planned at the peak of segments=4"
AT_HALF, LEAST = "planned at 50 %", "planned, least"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """One way to train one backbone.

    `peak_bytes` are activations and temporaries, counted in the whole step; `solved_peak_bytes` is what the planner's
    programme had for the same plan. Ratios are to no checkpointing.
    """

    family: str
    variant: str
    variants: int
    promised: str
    way: str
    input_shape: str
    peak_bytes: int
    peak_ratio: float
    solved_peak_bytes: int | None
    predicted_time_ratio: float | None
    time_ratio: float
    time_ratio_low: float  # quartiles over the rounds
    time_ratio_high: float
    seconds: float
    buffers: int
    buffers_that_differ: int


def middle_variant(family: str) -> str:
    """The variant in the middle of a family, the smaller of two."""
    variants = FAMILIES[family].variants
    return variants[(len(variants) - 1) // 2]


def input_shape(family: str, batch: int) -> tuple[int, ...]:
    """Images of 224 px; for `swin3d` clips of 16 frames of 112 px."""
    return (batch, 3, 16, 112, 112) if FAMILIES[family].input_dims == 5 else (batch, 3, 224, 224)


class Switched(nn.Module):
    """A network under timm's own switch, or where it has none, with `torch.utils.checkpoint` around each unit."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self._has_switch = hasattr(backbone.model, "set_grad_checkpointing")

    def forward(self, images: Tensor) -> Tensor:
        """Features `[B, num_features]`."""
        if self._has_switch:
            with self._switched_on():
                output: Tensor = self.backbone.model(images)
            return output
        for unit in self.backbone.chain():
            images = checkpoint(unit.run, images, use_reentrant=False)
        return images

    @contextmanager
    def _switched_on(self) -> Iterator[None]:
        self.backbone.model.set_grad_checkpointing(True)  # type: ignore[operator]
        try:
            yield
        finally:
            self.backbone.model.set_grad_checkpointing(False)  # type: ignore[operator]


@dataclass(frozen=True)
class _Way:
    """`prepare` switches it on and gives the module to call."""

    prepare: Callable[[], nn.Module]
    solved: PlanCost | None = None
    time_ratio: float | None = None


def plain_ways(backbone: Backbone) -> dict[str, _Way]:
    """Without checkpointing, under timm's switch, and ours that need no plan."""

    def ours(setting: Mapping[str, Any]) -> nn.Module:
        backbone.enable_gradient_checkpointing(**setting)
        return backbone

    def plain(module: nn.Module) -> nn.Module:
        backbone.disable_gradient_checkpointing()
        return module

    return {
        UNCHECKED: _Way(partial(plain, backbone)),
        SWITCH: _Way(partial(plain, Switched(backbone))),
        **{name: _Way(partial(ours, setting)) for name, setting in OURS.items()},
    }


def planned_ways(backbone: Backbone, planner: Planner, peaks: Mapping[str, int]) -> dict[str, _Way]:
    """Plans at the peaks of other ways, at half of the unchecked one, and the one that holds the least."""

    def follow(plan: CheckpointingPlan) -> nn.Module:
        plan.apply(backbone)
        return backbone

    least = planner.least(counts_everything=False).activation_bytes
    budgets = {AT_SWITCH: peaks[SWITCH], AT_SEGMENTS: peaks["segments=4"], AT_HALF: peaks[UNCHECKED] / 2, LEAST: least}
    ways = {}
    for name, budget_bytes in budgets.items():
        plan = planner.plan(Budget(share=budget_bytes / peaks[UNCHECKED]))
        ways[name] = _Way(partial(follow, plan), planner.solved(plan), plan.predicted.time_ratio)
    return ways


def measure(family: str, *, count_batch: int, time_batch: int, rounds: int, device: torch.device) -> list[Row]:
    """All ways of the family's middle variant side by side."""
    variant = middle_variant(family)
    backbone = create_backbone(variant, drop_path=DROP_PATH).to(device).train()
    shape = input_shape(family, count_batch)

    def peak(way: _Way) -> int:
        return count_training_step(way.prepare(), shape, optimizer=None, fake=True).peak_activation_bytes

    all_ways = plain_ways(backbone)
    peaks = {name: peak(way) for name, way in all_ways.items()}
    backbone.disable_gradient_checkpointing()
    started = time.perf_counter()
    planner = Planner(backbone, shape, stopwatch=Measured(batch=time_batch))
    planned = planned_ways(backbone, planner, peaks)
    logger.info("%s: planned in %.1f s", variant, time.perf_counter() - started)
    all_ways |= planned
    peaks |= {name: peak(way) for name, way in planned.items()}
    # A plan is for batches of up to its own.
    images = torch.randn(input_shape(family, min(2, count_batch)), device=device)
    buffers = {name: _buffers_after(way.prepare, backbone, images) for name, way in all_ways.items()}
    prepared = {name: way.prepare for name, way in all_ways.items()}
    seconds = _time(prepared, torch.randn(input_shape(family, min(time_batch, count_batch)), device=device), rounds)
    rows = []
    for name, way in all_ways.items():
        ratios = [one / other for one, other in zip(seconds[name], seconds[UNCHECKED], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        row = Row(
            family=family,
            variant=variant,
            variants=len(FAMILIES[family].variants),
            promised=PROMISED[family],
            way=name,
            input_shape="x".join(map(str, shape)),
            peak_bytes=peaks[name],
            peak_ratio=round(peaks[name] / peaks[UNCHECKED], 3),
            solved_peak_bytes=None if way.solved is None else way.solved.activation_bytes,
            predicted_time_ratio=None if way.time_ratio is None else round(way.time_ratio, 3),
            time_ratio=round(middle, 3),
            time_ratio_low=round(low, 3),
            time_ratio_high=round(high, 3),
            seconds=round(statistics.median(seconds[name]), 3),
            buffers=len(buffers[name]),
            buffers_that_differ=sum(
                not torch.equal(*pair) for pair in zip(buffers[UNCHECKED], buffers[name], strict=True)
            ),
        )
        predicted = "" if row.predicted_time_ratio is None else f" (predicted {row.predicted_time_ratio:.2f})"
        logger.info("%s, %s: memory x %.2f, time x %.2f%s", variant, name, row.peak_ratio, row.time_ratio, predicted)
        rows.append(row)
    return rows


def _count_different(first: Sequence[Tensor], second: Sequence[Tensor]) -> int:
    return sum(not torch.equal(one, other) for one, other in zip(first, second, strict=True))


def _step(module: nn.Module, images: Tensor) -> None:
    module(images).square().mean().backward()
    module.zero_grad()


def _buffers_after(prepare: Callable[[], nn.Module], backbone: Backbone, images: Tensor) -> list[Tensor]:
    """The buffers after one step; the backbone is left as it was."""
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    torch.manual_seed(0)
    _step(prepare().train(), images)
    after = [buffer.clone() for buffer in backbone.buffers()]
    backbone.load_state_dict(before)
    return after


def _time(prepared: Mapping[str, Callable[[], nn.Module]], images: Tensor, rounds: int) -> dict[str, list[float]]:
    """Seconds of a step, per way and round; a first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in prepared}
    for number in range(rounds + 1):
        for name, prepare in prepared.items():
            module = prepare().train()
            _synchronise(images.device)
            started = time.perf_counter()
            _step(module, images)
            _synchronise(images.device)
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def save(rows: Iterable[Row], device: torch.device, folder: Path = FOLDER) -> Path:
    """Write the rows to a table named by what they were measured on, and when."""
    words = (device_name(device), f"torch {torch.__version__}", datetime.datetime.now(datetime.UTC).date().isoformat())
    name = "-".join(re.sub(r"[^A-Za-z0-9.]+", "-", word).strip("-") for word in words)
    path = folder / f"checkpointing-{name}.csv"
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame([asdict(row) for row in rows]).to_csv(path, index=False)
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the families and write the table."""
    parser = argparse.ArgumentParser(prog="python -m aerofuse.benchmarks.checkpointing", description=__doc__)
    parser.add_argument("families", nargs="*", type=one_of(FAMILIES), help="families to measure (default: all)")
    parser.add_argument("--count-batch", type=int, default=8, help="batch whose memory is counted (default: 8)")
    parser.add_argument("--time-batch", type=int, default=4, help="batch that is timed (default: 4)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of timing (default: 5)")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    rows: list[Row] = []
    for family in tqdm(options.families or list(FAMILIES), unit="family", disable=None):
        rows += measure(
            family,
            count_batch=options.count_batch,
            time_batch=options.time_batch,
            rounds=options.rounds,
            device=options.device,
        )
        # After each, so that what stops a long run loses one family only.
        logger.info("written to %s", save(rows, options.device))


if __name__ == "__main__":
    main()
