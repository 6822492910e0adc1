"""The ways to train a network that the benchmark compares: as it is, under timm's switch, and ours."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing

from aerofuse.backbones.backbone import Backbone
from aerofuse.checkpointing.budget import Budget
from aerofuse.checkpointing.plan import CheckpointingPlan
from aerofuse.planning.planner import Planner
from tools.benchmarks.rows import (
    AT_HALF,
    AT_SEGMENTS,
    AT_SWITCH,
    BASELINE,
    LEAST,
    RECOMPUTE_ALL,
    SEGMENTS,
    SELECTIVE,
    SWITCH,
)

logger = logging.getLogger(__name__)

_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    SELECTIVE: {"policy": "selective"},
    RECOMPUTE_ALL: {"policy": RECOMPUTE_ALL},
    SEGMENTS: {"segments": 4},
}


@dataclass(frozen=True)
class Way:
    """`prepare` switches it on, for batches of any size or up to that given, and gives the module to call.

    `plan` is what it follows, where it is a planned one.
    """

    prepare: Callable[[int], nn.Module]
    plan: CheckpointingPlan | None = None


def plain_ways(model: nn.Module) -> dict[str, Way]:
    """Without checkpointing, under timm's switch, and ours that need no plan."""
    backbones = [module for module in model.modules() if isinstance(module, Backbone)]

    def ours(setting: Mapping[str, Any], _batch: int) -> nn.Module:
        for backbone in backbones:
            backbone.enable_gradient_checkpointing(**setting)
        return model

    def baseline(_batch: int) -> nn.Module:
        for backbone in backbones:
            backbone.disable_gradient_checkpointing()
        return model

    under_switch = switched(model)
    return {
        BASELINE: Way(baseline),
        SWITCH: Way(lambda _batch: under_switch),
        **{name: Way(partial(ours, setting)) for name, setting in _SETTINGS.items()},
    }


def planned_shares(planner: Planner, peaks: Mapping[str, int]) -> dict[str, float]:
    """The budgets of planned ways as shares of the baseline peak; `peaks` are those of the ways without a plan."""
    least = planner.least(counts_everything=False).activation_bytes
    budgets = {AT_SWITCH: peaks[SWITCH], AT_SEGMENTS: peaks[SEGMENTS], AT_HALF: peaks[BASELINE] / 2, LEAST: least}
    return {name: budget_bytes / peaks[BASELINE] for name, budget_bytes in budgets.items()}


def planned_ways(model: nn.Module, planner: Planner, shares: Mapping[str, float]) -> dict[str, Way]:
    """A plan within each share. One for which the planner has no plan is left out, with a warning."""
    ways = {}
    for name, share in shares.items():
        try:
            ways[name] = follow(planner.plan(Budget(share=share)), model)
        except ValueError as error:
            logger.warning("not %s: %s", name, error)
    return ways


def follow(plan: CheckpointingPlan, model: nn.Module) -> Way:
    """The way that a plan of `model` is."""

    def prepare(batch: int) -> nn.Module:
        _widened(plan, batch).apply(model)
        return model

    return Way(prepare, plan)


def _widened(plan: CheckpointingPlan, batch: int) -> CheckpointingPlan:
    """The same plan, also for more samples than it was made for; its peak is another one then."""
    if batch <= plan.scope.input_shape[0]:
        return plan

    return replace(plan, scope=replace(plan.scope, input_shape=(batch, *plan.scope.input_shape[1:])))


def switched(model: nn.Module) -> nn.Module:
    """A copy of a model that has the same parameters and buffers, its backbones under timm's own switch."""
    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    twin = copy.deepcopy(model, shared)
    if isinstance(twin, Backbone):
        return _Switched(twin)
    for name, module in list(twin.named_modules()):
        if isinstance(module, Backbone):
            twin.set_submodule(name, _Switched(module))
    return twin


class _Switched(nn.Module):
    """A network under timm's switch, or where it has none, with `torch.utils.checkpoint` around each block."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        backbone.disable_gradient_checkpointing()
        self.backbone = backbone
        self._has_switch = hasattr(backbone.model, "set_grad_checkpointing")
        if self._has_switch:
            backbone.model.set_grad_checkpointing(True)  # type: ignore[operator]
        else:
            apply_activation_checkpointing(backbone.model, check_fn=lambda module: "Block" in type(module).__name__)

    def forward(self, images: Tensor) -> Tensor:
        """Features `[B, num_features]`."""
        if self._has_switch:
            output: Tensor = self.backbone.model(images)
            return output
        features: Tensor = self.backbone(images)
        return features
