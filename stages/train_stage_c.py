"""The hybrid, phase C: everything learns, from the best of phase B."""

from __future__ import annotations

from aerofuse.training.distributed import launch
from aerofuse.training.stage import train_stage
from stages import run


def train_stage_c() -> None:
    train_stage("train_stage_c")


if __name__ == "__main__":
    run(lambda: launch(train_stage_c, "stages.train_stage_c"))
