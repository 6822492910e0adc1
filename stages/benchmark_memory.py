"""What gradient checkpointing saves and costs for one family: `python -m stages.benchmark_memory <family>`."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from aerofuse.backbones.families import FAMILIES
from aerofuse.common.files import write_json
from aerofuse.common.params import load_section
from aerofuse.tracking.tracker import TrackingParams, track_run
from stages import run
from tools.benchmarks.allocator import keep_freed_memory
from tools.benchmarks.headlines import headlines
from tools.benchmarks.params import BENCHMARK_PARAMS_FILE, BenchmarkParams
from tools.benchmarks.results import BenchmarkSettings
from tools.benchmarks.side_by_side import measure
from tools.benchmarks.subjects import backbone_subject, middle_variant


def benchmark_memory(family: str) -> None:
    params = load_section(BenchmarkParams, "benchmark_memory", BENCHMARK_PARAMS_FILE)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # Nobody trains in bf16 on a CPU that takes minutes for a step; `make benchmark` counts its bytes all the same.
    precisions = ("float32", "bf16") if device.type == "cuda" else ("float32",)
    settings = BenchmarkSettings(
        params.image_size, params.count_batch, params.time_batch, params.rounds, params.timing_s, precisions
    )
    subject = backbone_subject(middle_variant(family), params.image_size, device)
    table = Path("reports/benchmark_memory") / family / "table.csv"
    metrics = Path("metrics/benchmark_memory") / f"{family}.json"
    with track_run("benchmark_memory", load_section(TrackingParams, "tracking")) as tracker:
        tracker.log_params({"family": family, "variant": subject.variant, "benchmark_memory": params.model_dump()})
        keep_freed_memory()
        results = measure(subject, settings)
        results.save(table)
        found = headlines(results.table)
        write_json(metrics, {"benchmark_memory": found})
        tracker.log_metrics(found, step=0)
        for path in (table.parent, metrics):
            tracker.log_artifact(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family", choices=FAMILIES)
    chosen: str = parser.parse_args().family
    run(lambda: benchmark_memory(chosen))
