"""The multi-task loss; a label that is missing adds nothing to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from aerofuse.data.labels import CLASSIFICATION_TASKS, MISSING_CLASS


def count_labels(targets: Mapping[str, Tensor], tasks: Iterable[str]) -> dict[str, Tensor]:
    """How many of the samples have the label of each task, a scalar int64 per task."""
    return {task: _is_labelled(task, targets[task]).sum() for task in tasks}


def task_losses(
    outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], counts: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """The mean loss of each task over the samples that have its label, a scalar per task.

    Cross-entropy for logits `[B, C]`, SmoothL1 for values `[B]`. A task without a label in the batch gives an
    exact zero that is still part of the graph, so that every parameter has a gradient on every process.

    `counts` are those of a larger batch of which this is a part; the losses of all its parts then add up to its own.
    """
    counts = counts or count_labels(targets, outputs)
    return {task: _summed(task, output, targets[task]) / counts[task].clamp(min=1) for task, output in outputs.items()}


def weighted_sum(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The loss that is minimised: the sum of the tasks' losses by their weights."""
    return torch.stack([weights[task] * loss for task, loss in losses.items()]).sum()


def _summed(task: str, output: Tensor, target: Tensor) -> Tensor:
    # Losses are taken in float32 whatever the model computes in.
    output = output.float()
    if task in CLASSIFICATION_TASKS:
        return F.cross_entropy(output, target, ignore_index=MISSING_CLASS, reduction="sum")
    # A NaN would survive multiplication by the mask: compare such a sample with itself instead.
    known = torch.where(_is_labelled(task, target), target, output.detach())
    return F.smooth_l1_loss(output, known, reduction="sum")


def _is_labelled(task: str, target: Tensor) -> Tensor:
    return target != MISSING_CLASS if task in CLASSIFICATION_TASKS else ~target.isnan()
