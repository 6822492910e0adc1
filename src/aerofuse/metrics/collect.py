"""Collect a model's outputs over a whole split, and leave the model as it was."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from aerofuse.models.aircraft_model import evaluation_mode

Batch = tuple[Tensor, dict[str, Tensor]]


def collect_outputs(
    model: nn.Module, loader: Iterable[Batch], accelerator: Accelerator
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return all outputs and targets of a split, on CPU in float32, in the order of the loader: `{task: [N, ...]}`.

    `model` and `loader` come from `accelerator.prepare`; a batch is `(images uint8 [B, 3, H, W], targets)`.
    With several processes each gets the whole, without the samples that were repeated to fill the last batch.
    Raises `ValueError` where there is no batch.
    """
    collected: list[list[dict[str, Tensor]]] = []
    with evaluation_mode(model):
        bar = tqdm(loader, desc="evaluating", leave=False, disable=None if accelerator.is_main_process else True)
        for images, targets in bar:
            outputs = {task: output.float() for task, output in model(images).items()}
            gathered = accelerator.gather_for_metrics((outputs, targets))
            collected.append([{task: tensor.cpu() for task, tensor in tensors.items()} for tensors in gathered])
    if not collected:
        raise ValueError("the split is empty: there is nothing to evaluate")
    all_outputs, all_targets = zip(*collected, strict=True)
    return _concatenate(all_outputs), _concatenate(all_targets)


def _concatenate(parts: tuple[dict[str, Tensor], ...]) -> dict[str, Tensor]:
    return {task: torch.cat([part[task] for part in parts]) for task in parts[0]}
