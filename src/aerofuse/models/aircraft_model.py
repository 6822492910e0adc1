"""The contract of every model: named parts, any of which can be frozen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Self

import torch
from torch import Tensor, nn

from aerofuse.backbones.backbone import Backbone
from aerofuse.planning.checkpointed import Checkpointed

# The statistics of ImageNet, with which timm's backbones were trained, and so were the bundled ones.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Normalise(nn.Module):
    """uint8 RGB `[B, 3, H, W]` in 0..255 to standardised floats of the same shape."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images.to(self.mean.dtype) - self.mean) / self.std


class AircraftModel(Checkpointed, ABC):
    """uint8 images `[B, 3, H, W]` to `{task: logits [B, C] or value [B]}`.

    Subclasses publish their parts by name (`parts`); `train_only` chooses which of them learn. A frozen part is
    frozen entirely: no gradients, no saved activations, and it stays in evaluation mode, so that neither
    BatchNorm statistics nor drop-path nor dropout act in it.
    """

    _optimizer = "adamw"  # with which every stage trains

    def __init__(self) -> None:
        super().__init__()
        self._frozen: frozenset[str] = frozenset()

    @abstractmethod
    def parts(self) -> Mapping[str, nn.Module]:
        """Return the model's parts by name; together they hold every parameter."""

    @abstractmethod
    def get_features(self, images: Tensor) -> Tensor:
        """Return the vector `[B, D]` that the heads read."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        self.follow_budget(images)
        outputs: dict[str, Tensor] = self.parts()["heads"](self.get_features(images))
        return outputs

    def backbones(self) -> dict[str, Backbone]:
        """Return the parts that are backbones."""
        return {name: part for name, part in self.parts().items() if isinstance(part, Backbone)}

    @property
    def frozen_parts(self) -> frozenset[str]:
        """Return the names of the parts that do not learn."""
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
