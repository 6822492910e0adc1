"""The multi-task baseline: a ConvNeXt with all four heads."""

from __future__ import annotations

from aerofuse.training.distributed import launch
from aerofuse.training.stage import train_stage
from stages import run


def train_multi_task() -> None:
    train_stage("train_multi_task")


if __name__ == "__main__":
    run(lambda: launch(train_multi_task, "stages.train_multi_task"))
