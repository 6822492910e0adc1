"""The base class of every model: named parts that can be frozen, and one memory budget for all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn

from aerofuse.backbones.backbone import Backbone
from aerofuse.models.heads import Heads
from aerofuse.planning.checkpointed import Checkpointed

# The statistics of ImageNet: timm's backbones and the bundled ones were trained with them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class AircraftModel(Checkpointed, ABC):
    """Map uint8 images `[B, 3, H, W]` to `{task: logits [B, C] or value [B]}`.

    Subclasses name their parts (`parts`), and `train_only` chooses which of them learn. A frozen part has no
    gradients, saves no activations, and stays in evaluation mode: its BatchNorm statistics do not change, and its
    drop-path and dropout are off.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sees_mirrored = False
        self._frozen: frozenset[str] = frozenset()

    @abstractmethod
    def parts(self) -> Mapping[str, nn.Module]:
        """Return the model's parts by name; together they hold every parameter."""

    @abstractmethod
    def get_features(self, images: Tensor) -> Tensor:
        """Return the features `[B, D]` that the heads read."""

    @property
    def num_features(self) -> int:
        """Return the number of features that the heads read."""
        heads = self.parts()["heads"]
        assert isinstance(heads, Heads)
        return heads.num_features

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the outputs; in evaluation, with `sees_mirrored`, their mean over the images and their mirror images.

        It is part of the model, so that whoever validates, predicts or exports does the same.
        """
        return self.outputs_and_features(images)[0]

    def outputs_and_features(self, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the outputs, and the features `[B, D]` that the heads read; both are means as in `forward`."""
        if not self.sees_mirrored or self.training:
            return self._one_view(images)
        # One pass over both: two passes would make the exported program twice as large.
        outputs, features = self._one_view(torch.cat([images, images.flip(-1)]))
        return {task: _mean_of_views(output) for task, output in outputs.items()}, _mean_of_views(features)

    def _one_view(self, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        features = self.get_features(images)
        outputs: dict[str, Tensor] = self.parts()["heads"](features)
        return outputs, features

    def backbones(self) -> dict[str, Backbone]:
        """Return the parts that are backbones, by name."""
        return {name: part for name, part in self.parts().items() if isinstance(part, Backbone)}

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
        """Put the parts that learn into training mode; frozen ones stay in evaluation mode."""
        super().train(mode)
        if mode:
            for name in self._frozen:
                self.parts()[name].eval()
        return self

    def run_part(self, name: str, *inputs: Any) -> Any:
        """Return one part's output; a frozen part saves nothing for the backward pass."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and name not in self._frozen):
            return self.parts()[name](*inputs)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode without gradients; afterwards every module is in the mode that it was in before.

    `model.train()` cannot undo it: frozen parts of a model in training are in evaluation mode.
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


class Normalise(nn.Module):
    """Standardise uint8 RGB images `[B, 3, H, W]` in 0..255 to floats of the same shape, by ImageNet's statistics."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images.to(self.mean.dtype) - self.mean) / self.std


def _mean_of_views(values: Tensor) -> Tensor:
    """Return the means `[B, ...]` of values `[2 B, ...]` of images and, after them, of their mirror images."""
    means: Tensor = values.unflatten(0, (2, -1)).mean(dim=0)
    return means
