"""The contract of every backbone: features from images, a chain of units, one switch for gradient checkpointing."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from aerofuse.backbones.families import FAMILIES, family_of
from aerofuse.checkpointing.budget import Budget, parse_budget
from aerofuse.checkpointing.chain import Unit, run_units
from aerofuse.checkpointing.execution import run_planned
from aerofuse.checkpointing.plan import Plan, Policy, check_segments
from aerofuse.checkpointing.policy import CheckpointingPlan, Planned, Segments, Treatment
from aerofuse.memory.step import Precision
from aerofuse.planning.planner import plan_checkpointing
from aerofuse.planning.saved_bytes import held_bytes

logger = logging.getLogger(__name__)


class Backbone(nn.Module):
    """Images `[B, 3, H, W]`, or for `swin3d` clips `[B, 3, T, H, W]`, to features `[B, num_features]`.

    The network itself is `model`, under its own names. Its forward pass is that of its chain; gradient
    checkpointing says what each unit keeps until the backward pass and changes neither outputs nor gradients nor
    buffers. It acts in training mode with gradients on, is off by default, and is no part of the `state_dict`.
    """

    def __init__(self, variant: str, model: nn.Module) -> None:
        """Wrap `model`, built as `variant`. Raises `ValueError` for an unknown variant."""
        super().__init__()
        self.variant = variant
        self.family = family_of(variant)
        self.model = model
        self.treatment: Treatment = None
        self._held_bytes: dict[tuple[int, ...], list[int]] = {}
        self._segmented: dict[tuple[int, ...], Plan] = {}
        self._budgeted: dict[tuple[Budget, Precision, tuple[int, ...]], CheckpointingPlan] = {}

    @property
    def num_features(self) -> int:
        """The length of the vector per image."""
        # Where a hidden layer stands between pooling and classifier, the features are its outputs.
        return int(getattr(self.model, "head_hidden_size", None) or self.model.num_features)  # type: ignore[arg-type]

    def chain(self) -> tuple[Unit, ...]:
        """The network's units in order; their composition is its forward pass.

        Read anew each time, so that a copy of this backbone has a chain of its own modules.
        """
        return tuple(FAMILIES[self.family].read_chain(self.model))

    def forward(self, images: Tensor) -> Tensor:
        """Raises `ValueError` for inputs of another number of dimensions."""
        self._check(images)
        if not (self.is_gradient_checkpointing_enabled() and self.training and torch.is_grad_enabled()):
            return run_units(self.chain(), images)
        return run_planned(self.chain(), self._plan(images), images)

    def enable_gradient_checkpointing(
        self, segments: int | None = None, *, policy: Policy | str | None = None, budget: object = None
    ) -> None:
        """Trade time for memory in training; may be called again to choose otherwise.

        `segments`: cut the chain into that many ranges which hold about as many bytes, and compute all but the last
        again in the backward pass. `policy`: treat every unit alike; `recompute_all`, which also is the default
        where nothing is given, keeps the least. `budget`: the fastest plan within so much memory, made when the
        first batch is seen: bytes (`"6 GiB"`) for all that a step of this backbone holds, or a share (`0.5`) of the
        activations that are held without checkpointing. `plan_checkpointing` makes such plans beforehand.

        Raises `ValueError` for segments that the chain does not have, an unknown policy, a budget that is none, or
        more than one of them. The first step raises one for a budget below the least possible.
        """
        if sum(choice is not None for choice in (segments, policy, budget)) > 1:
            raise ValueError("segments, policy and budget are three ways to say what is kept; give one of them")
        if segments is not None:
            check_segments(segments, len(self.chain()))
            self.treatment = Segments(segments)
        elif budget is not None:
            self.treatment = parse_budget(budget)
        else:
            self.treatment = _as_policy(policy or Policy.RECOMPUTE_ALL)

    def disable_gradient_checkpointing(self) -> None:
        """Keep everything again."""
        self.treatment = None

    def is_gradient_checkpointing_enabled(self) -> bool:
        """Whether a training step of this backbone may compute anything again."""
        return self.treatment is not None

    def _plan(self, images: Tensor) -> Plan:
        match self.treatment:
            case Policy():
                return Plan.uniform(self.treatment, len(self.chain()))
            case Segments(count):
                # What a unit holds beside another does not depend on the batch.
                shape = tuple(images.shape[1:])
                if shape not in self._held_bytes:
                    self._held_bytes[shape] = held_bytes(self.chain(), images[:2])
                if (count, *shape) not in self._segmented:
                    self._segmented[count, *shape] = Plan.segmented(self._held_bytes[shape], count)
                return self._segmented[count, *shape]
            case Budget():
                return self._planned_for(self.treatment, images).parts[""].plan
            case Planned(plan, scope):
                scope.check(images.shape, _precision(images))
                return plan
        raise AssertionError("nothing is to be checkpointed")

    def _planned_for(self, budget: Budget, images: Tensor) -> CheckpointingPlan:
        """The plan for the largest batch of this kind so far."""
        precision = _precision(images)
        key = (budget, precision, tuple(images.shape[1:]))
        plan = self._budgeted.get(key)
        if plan is None or plan.scope.input_shape[0] < len(images):
            plan = plan_checkpointing(self, images.shape, budget, precision=precision, input_dtype=images.dtype)
            self._budgeted[key] = plan
            logger.info("%s: %s", self.variant, plan.summary())
        return plan

    def _check(self, images: Tensor) -> None:
        wanted = FAMILIES[self.family].input_dims
        if images.ndim != wanted:
            shape = "clips [B, 3, T, H, W]" if wanted == 5 else "images [B, 3, H, W]"
            raise ValueError(f"{self.variant} takes {shape}, not {list(images.shape)}")


def _precision(images: Tensor) -> Precision:
    return "bf16" if torch.is_autocast_enabled(images.device.type) else "float32"


def _as_policy(policy: Policy | str) -> Policy:
    try:
        return Policy(policy)
    except ValueError:
        raise ValueError(f"unknown policy {policy!r}; known are {', '.join(Policy)}") from None


# They come with the repository; all others have their weights on the hub.
THIN_BACKBONES = tuple(sorted(name for family in FAMILIES.values() for name in family.thin))


def create_backbone(
    name: str,
    *,
    pretrained: bool = False,
    image_size_px: int = 224,
    drop_path: float = 0.0,
    dropout: float = 0.0,
    **pretrained_cfg: Any,
) -> Backbone:
    """A backbone with random weights, or with timm's or torchvision's from the network where `pretrained`.

    `name` is a variant that `list_backbones` names, with or without the tag of its weights
    (`convnext_base.fb_in22k`). `drop_path` is the rate of stochastic depth (arXiv 1603.09382), `dropout` that of the
    network's own dropout. `pretrained_cfg` overlays timm's record of where its weights are. Transformers are built
    for images of `image_size_px`; convolutional networks and `swin3d` take any size.

    Raises `ValueError` with near names for an unknown one.
    """
    family = FAMILIES[family_of(name)]
    settings: dict[str, Any] = {"pretrained": True, **pretrained_cfg} if pretrained else {}
    model = family.build(name, image_size_px=image_size_px, drop_rate=dropout, drop_path_rate=drop_path, **settings)
    return Backbone(name, model)
