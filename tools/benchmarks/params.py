"""`benchmarks/params.yaml`: how gradient checkpointing is measured."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from aerofuse.common.params import Section

BENCHMARK_PARAMS_FILE = Path("benchmarks/params.yaml")


class BenchmarkParams(Section):
    """What is counted on fake tensors, and how much is really run."""

    image_size: int = Field(ge=64, le=1024, description="px; clips of Swin 3D are half as high and wide")
    count_batch: int = Field(ge=2, description="samples of the step whose memory is counted")
    time_batch: int = Field(ge=1, description="samples of a real step on a CPU; on CUDA it is the one counted")
    rounds: int = Field(ge=1, description="at least; in each, every way to train runs once")
    timing_s: int = Field(ge=0, description="seconds that a network is timed for at least, in more rounds")
