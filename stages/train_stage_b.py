"""The hybrid, phase B: the transformer joins, from the best of phase A."""

from __future__ import annotations

from aerofuse.training.distributed import launch
from aerofuse.training.stage import train_stage
from stages import run


def train_stage_b() -> None:
    train_stage("train_stage_b")


if __name__ == "__main__":
    run(lambda: launch(train_stage_b, "stages.train_stage_b"))
