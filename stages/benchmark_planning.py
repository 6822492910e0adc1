"""How long it takes to plan for the hybrid of recipe `base`, on this machine."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from aerofuse.common.files import write_json
from stages import run
from tools.benchmarks.hybrid import time_planning


def benchmark_planning() -> None:
    write_json(Path("metrics/benchmark_planning.json"), {"benchmark_planning": asdict(time_planning("base"))})


if __name__ == "__main__":
    run(benchmark_planning)
