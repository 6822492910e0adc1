"""Looking at a model without changing it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every module is in the mode that it was in before.

    `model.train()` would not do for the way back: frozen parts of a model in training are in evaluation mode.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        # Not inference mode: what FSDP allocates in its first pass is written to in training.
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
