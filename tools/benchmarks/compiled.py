"""A compiled training step with plans, beside torch's own knob for its memory: `python -m tools.benchmarks.compiled`.

The knob is `torch._functorch.config.activation_memory_budget`, by which the compiler chooses what it saves. Each way
runs in a process of its own, which compiles it once; the processes take turns at being timed. It needs a C++ compiler,
and some minutes for each network.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from aerofuse.common.markdown import markdown_table
from aerofuse.common.torchvision_pairing import ensure_torchvision_imports
from aerofuse.planning.checkpointed import enable_gradient_checkpointing
from tools.benchmarks.results import COMPILED
from tools.benchmarks.side_by_side import write_table

ensure_torchvision_imports()

import timm  # noqa: E402

logger = logging.getLogger(__name__)

NETWORKS = ("convnext_atto", "vit_tiny_patch16_224", "resnet18")
WITHOUT, TIMM, KNOB, PLAN, RECOMPUTE_ALL = "no checkpointing", "timm's switch", "torch's knob", "plan", "recompute_all"
_BUDGETS = (0.75, 0.5, 0.35, 0.2)


@dataclass(frozen=True)
class CompiledWay:
    """A way to run a step. `budget` is what a knob or a plan is told, as a share."""

    name: str
    budget: float | None = None


WAYS = (
    CompiledWay(WITHOUT),
    CompiledWay(TIMM),
    CompiledWay(RECOMPUTE_ALL),
    *(CompiledWay(name, budget) for name in (KNOB, PLAN) for budget in _BUDGETS),
)


@dataclass(frozen=True)
class CompiledRow:
    """What a compiled step takes: the peak of all that it allocates, and its time over that without checkpointing."""

    network: str
    way: str
    budget: float | None
    peak_bytes: int
    time_ratio: float
    compile_seconds: float
    batch: int
    image_px: int


def measure(
    network: str, batch: int, image_px: int, rounds: int, ways: Sequence[CompiledWay] = WAYS
) -> list[CompiledRow]:
    """Compile a step of a network of timm in each way, and time them in turns. A way that is refused is left out."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[CompiledWay, Connection] = {}
    first: dict[CompiledWay, tuple[float, int]] = {}
    for way in ways:
        ours, theirs = context.Pipe()
        context.Process(target=_serve, args=(theirs, network, batch, image_px, way), daemon=True).start()
        answer = ours.recv()
        if isinstance(answer, str):
            logger.info("%s, %s %s: %s", network, way.name, way.budget or "", answer)
            continue
        pipes[way], first[way] = ours, answer
        logger.info("%s, %s %s: compiled in %.0f s", network, way.name, way.budget or "", answer[0])
    seconds: dict[CompiledWay, list[float]] = {way: [] for way in pipes}
    for _ in range(rounds):
        for way, pipe in pipes.items():
            pipe.send(True)
            seconds[way].append(pipe.recv())
    for pipe in pipes.values():
        pipe.send(False)
    without = CompiledWay(WITHOUT)
    ratios = {
        way: statistics.median(one / other for one, other in zip(found, seconds[without], strict=True))
        for way, found in seconds.items()
    }
    return [
        CompiledRow(network, way.name, way.budget, peak, round(ratios[way], 4), round(compiling, 1), batch, image_px)
        for way, (compiling, peak) in first.items()
    ]


def _serve(pipe: Connection, name: str, batch: int, image_px: int, way: CompiledWay) -> None:
    """Compile a step, and say how long that took and how much the step allocates; then time one whenever asked."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    # As a compiler on a CPU wants convolutions; else it copies what goes from one unit to the next.
    images = torch.randn(batch, 3, image_px, image_px).contiguous(memory_format=torch.channels_last)
    network: nn.Module = _build(name, image_px).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        step = partial(_step, network, _compiled(network, way), images)
        began = time.perf_counter()
        step()
        step()
        pipe.send((time.perf_counter() - began, _peak_bytes(step)))
    except ValueError as error:  # a budget that is too small
        pipe.send(str(error))
        return
    while pipe.recv():
        began = time.perf_counter()
        step()
        pipe.send(time.perf_counter() - began)


def _build(name: str, image_px: int) -> nn.Module:
    try:
        network: nn.Module = timm.create_model(name, num_classes=10, img_size=image_px)
    except TypeError:  # it takes images of any size
        network = timm.create_model(name, num_classes=10)
    return network.train()


def _compiled(network: nn.Module, way: CompiledWay) -> Callable[[Tensor], Tensor]:
    if way.name == TIMM:
        network.set_grad_checkpointing(True)  # type: ignore[operator]
    elif way.name == KNOB:
        assert way.budget is not None
        torch._functorch.config.activation_memory_budget = way.budget
    elif way.name == PLAN:
        enable_gradient_checkpointing(network, budget=way.budget, optimizer=None)
    elif way.name == RECOMPUTE_ALL:
        enable_gradient_checkpointing(network, policy="recompute_all")
    return torch.compile(network)


def _step(network: nn.Module, compiled: Callable[[Tensor], Tensor], images: Tensor) -> None:
    compiled(images).square().mean().backward()
    network.zero_grad(set_to_none=True)


def _peak_bytes(step: Callable[[], None]) -> int:
    """Return the most bytes that a step has allocated at a time. Compiled code allocates out of sight of modes."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    allocated = peak = 0
    assert profiler.profiler is not None
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            allocated += event.nbytes()
            peak = max(peak, allocated)
    return peak


def compiled_table(path: Path) -> str:
    """Return for each network the peak and the time of the ways, and of knob and plans at the switch's peak.

    The fastest of those that take no more memory than the switch stands there, else the one of the least memory.
    """
    header = ["network", WITHOUT, TIMM, f"{KNOB}, at that peak", "plan, at that peak", RECOMPUTE_ALL]
    rows = []
    for network, found in pd.read_csv(path).groupby("network", sort=False):
        least = found[found["way"] == TIMM]["peak_bytes"].max()
        cells = []
        for name in (WITHOUT, TIMM, KNOB, PLAN, RECOMPUTE_ALL):
            ways = found[found["way"] == name]
            fitting = ways[ways["peak_bytes"] <= least]
            best = (ways.nsmallest(1, "peak_bytes") if fitting.empty else fitting.nsmallest(1, "time_ratio")).iloc[0]
            cells.append(f"{best['peak_bytes'] / 2**20:.0f} MiB / {best['time_ratio']:.2f}")
        rows.append([f"`{network}`", *cells])
    return markdown_table(header, rows, "l" + "r" * (len(header) - 1))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write a table named by what it ran on."""
    parser = argparse.ArgumentParser(prog="python -m tools.benchmarks.compiled", description=__doc__)
    parser.add_argument("--networks", nargs="+", default=NETWORKS, help=f"of timm (default: {' '.join(NETWORKS)})")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--image-size", type=int, default=96, metavar="PX")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of timing (default: 15)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    found = [measure(name, options.batch, options.image_size, options.rounds) for name in options.networks]
    write_table(pd.DataFrame(asdict(row) for rows in found for row in rows), COMPILED)


if __name__ == "__main__":
    main()
