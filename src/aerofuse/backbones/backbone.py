"""The contract of every backbone: features from images, a chain of units, one switch for gradient checkpointing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aerofuse.backbones.families import FAMILIES, family_of
from aerofuse.checkpointing.chain import Unit, run_units
from aerofuse.checkpointing.execution import run_planned
from aerofuse.checkpointing.plan import Plan, Policy, check_segments
from aerofuse.checkpointing.profile import held_bytes


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
        self._policy: Policy | None = None
        self._segments: int | None = None
        self._plans: dict[tuple[int, ...], Plan] = {}

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

    def enable_gradient_checkpointing(self, segments: int | None = None, *, policy: Policy | str | None = None) -> None:
        """Trade time for memory in training; may be called again to choose otherwise.

        `segments`: cut the chain into that many ranges which hold about as many bytes, and compute all but the last
        again in the backward pass. `policy`: treat every unit alike; `recompute_all`, which also is the default
        where neither is given, keeps the least.

        Raises `ValueError` for segments that the chain does not have, an unknown policy, or both at once.
        """
        if segments is not None and policy is not None:
            raise ValueError("segments and policy are two ways to say what is kept; give one of them")
        if segments is not None:
            check_segments(segments, len(self.chain()))
        self._policy = None if segments is not None else _as_policy(policy or Policy.RECOMPUTE_ALL)
        self._segments = segments

    def disable_gradient_checkpointing(self) -> None:
        """Keep everything again."""
        self._policy = self._segments = None

    def is_gradient_checkpointing_enabled(self) -> bool:
        """Whether a training step of this backbone would compute anything again."""
        return self._policy is not None or self._segments is not None

    def _plan(self, images: Tensor) -> Plan:
        chain = self.chain()
        if self._policy is not None:
            return Plan.uniform(self._policy, len(chain))
        assert self._segments is not None
        # What a unit holds beside another does not depend on the batch.
        key = (self._segments, *images.shape[1:])
        if key not in self._plans:
            self._plans[key] = Plan.segmented(held_bytes(chain, images[:2]), self._segments)
        return self._plans[key]

    def _check(self, images: Tensor) -> None:
        wanted = FAMILIES[self.family].input_dims
        if images.ndim != wanted:
            shape = "clips [B, 3, T, H, W]" if wanted == 5 else "images [B, 3, H, W]"
            raise ValueError(f"{self.variant} takes {shape}, not {list(images.shape)}")


def _as_policy(policy: Policy | str) -> Policy:
    try:
        return Policy(policy)
    except ValueError:
        raise ValueError(f"unknown policy {policy!r}; known are {', '.join(Policy)}") from None
