"""What moves the weights: AdamW over groups of parameters, its schedule, and the average that follows them."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from aerofuse.backbones.backbone import Backbone
from aerofuse.common.torchvision_pairing import ensure_torchvision_imports
from aerofuse.models.aircraft_model import AircraftModel

ensure_torchvision_imports()  # timm imports torchvision

from timm.optim import param_groups_layer_decay, param_groups_weight_decay  # type: ignore[attr-defined]  # noqa: E402
from timm.utils import ModelEmaV3  # type: ignore[attr-defined]  # noqa: E402

_NOT_DECAYED = ("*relative_position_bias_table",)  # Swin's position biases; timm leaves out vectors and scalars itself


def make_optimizer(model: AircraftModel, learning_rate: float, weight_decay: float, layer_decay: float = 1.0) -> AdamW:
    """Make AdamW over the parameters that learn; biases, norms, scales and position biases are not decayed.

    Each layer of a backbone learns `layer_decay` times as fast as the one above it (arXiv 1801.06146, 2106.08254);
    heads and fusion learn at the whole rate.
    """
    if layer_decay == 1:
        groups = param_groups_weight_decay(model, weight_decay, no_weight_decay_list=_NOT_DECAYED)
        return AdamW(groups[::-1], lr=learning_rate)  # decayed parameters come first
    groups = []
    for part in model.parts().values():
        if isinstance(part, Backbone):
            groups += param_groups_layer_decay(
                part.model, weight_decay, no_weight_decay_list=_NOT_DECAYED, layer_decay=layer_decay
            )
        else:
            groups += param_groups_weight_decay(part, weight_decay, no_weight_decay_list=_NOT_DECAYED)
    return AdamW([group | {"lr": learning_rate * group.get("lr_scale", 1.0)} for group in groups if group["params"]])


def make_schedule(optimizer: Optimizer, total_steps: int, warmup_fraction: float) -> LambdaLR:
    """Make a schedule: linear warmup over the first `warmup_fraction` of the steps, then a half cosine to zero."""
    warmup_steps = round(total_steps * warmup_fraction)

    def scale(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    return LambdaLR(optimizer, scale)


def make_average(model: nn.Module, decay: float) -> ModelEmaV3 | None:
    """Return an average of the weights that follows the model, or `None` for a decay of 0.

    The decay grows with the updates as 1 - (1 + updates)**-0.75, up to `decay`.
    """
    return ModelEmaV3(model, decay, use_warmup=True, warmup_power=0.75) if decay > 0 else None
