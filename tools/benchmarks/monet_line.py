"""MONeT's published line for ResNet-50, and ours at the same shares of memory.

MONeT (arXiv 2010.14501) reports, for batch 184 on one GPU, 15.06 GB without checkpointing, and what less memory costs.
Another GPU has other times and other convolutions, so that only ratios can stand side by side.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pandas as pd
import torch

from aerofuse.cli.arguments import device_here
from aerofuse.planning.clocks import Measured
from aerofuse.planning.planner import Planner
from aerofuse.planning.seen_before import nothing_seen_before
from tools.benchmarks.allocator import keep_freed_memory
from tools.benchmarks.measuring import compare_times, count, time_ways
from tools.benchmarks.results import MONET
from tools.benchmarks.rows import BASELINE, MONET_PUBLISHED, MONET_UNCHECKED_GB
from tools.benchmarks.side_by_side import write_table
from tools.benchmarks.subjects import Subject, backbone_subject
from tools.benchmarks.ways import follow, plain_ways


@dataclass(frozen=True)
class Point:
    """One budget. `share` is the limit on the peak of everything, over that peak without checkpointing.

    `peak_bytes` is the allocator's on CUDA, elsewhere that of the plan's whole step on fake tensors. Times are those
    of a step of `time_batch` images over the same without checkpointing.
    """

    share: float
    published_time_ratio: float
    predicted_time_ratio: float
    time_ratio: float
    unchecked_bytes: int  # of the baseline; tables on disk have this name
    predicted_peak_bytes: int
    peak_bytes: int
    batch: int
    time_batch: int


def measure_line(subject: Subject, batch: int, time_batch: int, rounds: int) -> list[Point]:
    """Plan for each of MONeT's budgets, and run the plans. Raises `ValueError` for a budget below the least."""
    with nothing_seen_before():  # as in the benchmark of networks
        planner = Planner(subject.model, subject.input_shape(batch), stopwatch=Measured(batch=time_batch))
    baseline = planner.baseline.peak_bytes
    plans = [planner.plan(round(memory_gb / MONET_UNCHECKED_GB * baseline)) for memory_gb, _ in MONET_PUBLISHED]
    ways = {BASELINE: plain_ways(subject.model)[BASELINE]}
    names = [f"planned within MONeT's {memory_gb} GB" for memory_gb, _ in MONET_PUBLISHED]
    ways |= {name: follow(plan, subject.model) for name, plan in zip(names, plans, strict=True)}
    timed = time_ways(ways, subject, time_batch, "float32", rounds)
    real = subject.device.type == "cuda"
    return [
        Point(
            share=round(memory_gb / MONET_UNCHECKED_GB, 4),
            published_time_ratio=published,
            predicted_time_ratio=round(planner.time_ratio(plan, time_batch), 4),
            time_ratio=compare_times(timed[name], time_batch).time_ratio,
            unchecked_bytes=baseline,
            predicted_peak_bytes=plan.predicted.peak_bytes,
            peak_bytes=count(ways[name], subject, batch, "float32", fake=not real).peak_bytes,
            batch=batch,
            time_batch=time_batch,
        )
        for (memory_gb, published), plan, name in zip(MONET_PUBLISHED, plans, names, strict=True)
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the line and write it as a table named by what it ran on."""
    parser = argparse.ArgumentParser(prog="python -m tools.benchmarks.monet_line", description=__doc__)
    parser.add_argument("--batch", type=int, default=184, help="batch that is planned for (default: 184)")
    parser.add_argument("--time-batch", type=int, default=4, help="batch that is timed on a CPU (default: 4)")
    parser.add_argument("--image-size", type=int, default=224, metavar="PX", help="side of the images (default: 224)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of timing (default: 3)")
    parser.add_argument("--device", type=device_here, default=torch.device("cpu"), help="cpu (default) or cuda")
    options = parser.parse_args(arguments)
    if min(options.batch, options.time_batch, options.rounds) < 1:
        parser.error("--batch, --time-batch and --rounds must be at least 1")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    keep_freed_memory()
    subject = backbone_subject("resnet50", options.image_size, options.device)
    time_batch = options.batch if options.device.type == "cuda" else min(options.time_batch, options.batch)
    points = measure_line(subject, options.batch, time_batch, options.rounds)
    write_table(pd.DataFrame(map(asdict, points)), MONET, options.device)


if __name__ == "__main__":
    main()
