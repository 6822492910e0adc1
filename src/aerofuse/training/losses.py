"""The multi-task loss; a label that is missing adds nothing to it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from aerofuse.data.labels import CLASSIFICATION_TASKS, MISSING_CLASS


def task_losses(outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The mean loss of each task over the samples that have its label, a scalar per task.

    Cross-entropy for logits `[B, C]`, SmoothL1 for values `[B]`. A task without a label in the batch gives an
    exact zero that is still part of the graph, so that every parameter has a gradient on every process.
    """
    return {task: _task_loss(task, output, targets[task]) for task, output in outputs.items()}


def weighted_sum(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The loss that is minimised: the sum of the tasks' losses by their weights."""
    return torch.stack([weights[task] * loss for task, loss in losses.items()]).sum()


def _task_loss(task: str, output: Tensor, target: Tensor) -> Tensor:
    # Losses are taken in float32 whatever the model computes in.
    output = output.float()
    if task in CLASSIFICATION_TASKS:
        total = F.cross_entropy(output, target, ignore_index=MISSING_CLASS, reduction="sum")
        labelled = target != MISSING_CLASS
    else:
        labelled = ~target.isnan()
        # A NaN would survive multiplication by the mask: compare such a sample with itself instead.
        known = torch.where(labelled, target, output.detach())
        total = F.smooth_l1_loss(output, known, reduction="sum")
    return total / labelled.sum().clamp(min=1)
