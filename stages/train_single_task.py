"""The single-task baseline: a ConvNeXt that names the type."""

from __future__ import annotations

from aerofuse.training.distributed import launch
from aerofuse.training.stage import train_stage
from stages import run


def train_single_task() -> None:
    train_stage("train_single_task")


if __name__ == "__main__":
    run(lambda: launch(train_single_task, "stages.train_single_task"))
