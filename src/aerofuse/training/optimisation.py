"""The optimiser and the schedule of its rate."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

# What Swin names its tables of position biases: like biases, they are not decayed.
_POSITION_TABLE = "relative_position_bias_table"


def make_optimizer(model: nn.Module, learning_rate: float, weight_decay: float) -> AdamW:
    """AdamW over the parameters that learn; biases, norms, scales and position tables are not decayed."""
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            plain = parameter.ndim <= 1 or name.endswith(_POSITION_TABLE)
            (kept if plain else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return AdamW([group for group in groups if group["params"]], lr=learning_rate)


def make_schedule(optimizer: Optimizer, total_steps: int, warmup_fraction: float) -> LambdaLR:
    """Linear rise over the first `warmup_fraction` of the steps, then a half cosine to zero."""
    warmup_steps = round(total_steps * warmup_fraction)

    def scale(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    return LambdaLR(optimizer, scale)
