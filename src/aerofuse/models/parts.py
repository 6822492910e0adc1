"""The contract of every model: named parts, any of which can be frozen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Self

import torch
from torch import Tensor, nn

from aerofuse.backbones.backbone import Backbone


class AircraftModel(nn.Module, ABC):
    """uint8 images `[B, 3, H, W]` to `{task: logits [B, C] or value [B]}`.

    Subclasses publish their parts by name (`parts`); `train_only` chooses which of them learn. A frozen part is
    frozen entirely: no gradients, no saved activations, and it stays in evaluation mode, so that neither
    BatchNorm statistics nor drop-path nor dropout act in it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._frozen: frozenset[str] = frozenset()

    @abstractmethod
    def parts(self) -> Mapping[str, nn.Module]:
        """The model's parts by name; together they hold every parameter."""

    @abstractmethod
    def get_features(self, images: Tensor) -> Tensor:
        """The vector `[B, D]` that the heads read."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = self.parts()["heads"](self.get_features(images))
        return outputs

    def backbones(self) -> dict[str, Backbone]:
        """The parts that are backbones."""
        return {name: part for name, part in self.parts().items() if isinstance(part, Backbone)}

    def enable_gradient_checkpointing(self, segments: int | None = None) -> Self:
        """Switch gradient checkpointing on in every backbone, each cut into `segments` ranges where given.

        A frozen backbone keeps nothing anyway. Raises `ValueError` where a backbone has fewer units than
        `segments`, or where the model has no backbone of ours.
        """
        if not self.backbones():
            raise ValueError("no part of this model is a backbone made by create_backbone, so none can be checkpointed")
        for backbone in self.backbones().values():
            backbone.enable_gradient_checkpointing(segments)
        return self

    @property
    def frozen_parts(self) -> frozenset[str]:
        """The names of the parts that do not learn."""
        return self._frozen

    def train_only(self, names: Collection[str]) -> Self:
        """Freeze every part but those named. Raises `ValueError` for a part that the model does not have."""
        parts = self.parts()
        unknown = set(names) - set(parts)
        if unknown:
            raise ValueError(f"no part {', '.join(sorted(unknown))}; this model has {', '.join(parts)}")
        self._frozen = frozenset(parts) - frozenset(names)
        for name, part in parts.items():
            part.requires_grad_(name not in self._frozen)
        return self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Training mode for the parts that learn; frozen ones stay in evaluation mode."""
        super().train(mode)
        if mode:
            for name in self._frozen:
                self.parts()[name].eval()
        return self

    def run_part(self, name: str, *inputs: Tensor) -> Tensor:
        """One part's output; a frozen part saves nothing for the backward pass."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and name not in self._frozen):
            output: Tensor = self.parts()[name](*inputs)
        return output
