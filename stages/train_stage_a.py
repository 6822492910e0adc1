"""The hybrid, phase A: fusion and heads learn on two frozen backbones."""

from __future__ import annotations

from aerofuse.training.distributed import launch
from aerofuse.training.stage import train_stage
from stages import run


def train_stage_a() -> None:
    train_stage("train_stage_a")


if __name__ == "__main__":
    run(lambda: launch(train_stage_a, "stages.train_stage_a"))
