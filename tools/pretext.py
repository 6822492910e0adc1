"""What pretraining trains: photos that say the shape of their type, a model with a head for it, and a teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from aerofuse.backbones.backbone import Backbone
from aerofuse.data.dataset import Augmentation, PreparedSplit
from aerofuse.data.labels import TASKS, ClassLists
from aerofuse.models.architecture import BaselineModel
from aerofuse.models.heads import Heads
from aerofuse.synthetic.fleet import Fleet
from tools.type_shape import type_shapes


class PretextSplit(PreparedSplit):
    """Photos whose targets also hold the `shape` of the type, `[measures]`."""

    def __init__(self, path: Path, classes: ClassLists, fleet: Fleet, augment: Augmentation | None = None) -> None:
        super().__init__(path, classes, augment)
        shapes = torch.from_numpy(type_shapes(fleet.types)).float()
        of_type = dict(zip((one.name for one in fleet.types), shapes, strict=True))
        for name, targets in zip(self.labels["typename"], self._targets, strict=True):
            targets["shape"] = of_type[name]
        self._no_targets["shape"] = torch.full_like(shapes[0], torch.nan)
        self.num_measures = len(shapes[0])

    def expect_no_errors(self, sizes: Mapping[str, int]) -> None:
        """Add targets of zeros, each of a given size: of the errors that a teacher finds."""
        zeros = {name: torch.zeros(size) for name, size in sizes.items()}
        for targets in self._targets:
            targets.update(zeros)
        self._no_targets.update({name: torch.full_like(zero, torch.nan) for name, zero in zeros.items()})


class Teacher(nn.Module):
    """A trained backbone that another one learns to see like.

    Its maps are what a fresh transformer learns from first (FitNets, arXiv 1412.6550): from names alone, or from names
    and the pooled features, it learned nothing in 32,000 photos.
    """

    def __init__(self, backbone: Backbone, learner: Backbone) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False).eval()
        own = _map_channels(learner)
        self._num_maps = len(own)
        # The last stages of the teacher, as many as the learner has.
        self.translate_maps = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(channels, affine=False), nn.Conv2d(channels, shown, kernel_size=1))
            for channels, shown in zip(own, _map_channels(backbone)[-len(own) :], strict=True)
        )
        self.translate_features = nn.Linear(learner.num_features, backbone.num_features)

    def train(self, mode: bool = True) -> Self:
        """Switch what translates to training; the teacher itself stays as it is."""
        super().train(mode)
        self.backbone.eval()
        return self

    def errors(self, images: Tensor, features: Tensor, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return by how much `features` `[B, D]` and `maps` differ from the teacher's, in the teacher's deviations."""
        shown_features, shown_maps = self._show(images)
        errors = []
        for own, shown, translate in zip(maps, shown_maps, self.translate_maps, strict=True):
            side = (shown.shape[-2], shown.shape[-1])
            errors.append((translate(functional.adaptive_avg_pool2d(own, side)) - _standardise(shown)).flatten(1))
        return {
            "features": self.translate_features(features) - _standardise(shown_features),
            "maps": torch.cat(errors, dim=1),
        }

    def num_errors(self, image_size: int) -> dict[str, int]:
        """Return how many errors of each kind `errors` returns per image."""
        features, maps = self._show(torch.zeros(1, 3, image_size, image_size))
        return {"features": features.numel(), "maps": sum(one.numel() for one in maps)}

    @torch.no_grad()
    def _show(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        return _features_and_maps(self.backbone, images, self._num_maps)


def _map_channels(backbone: Backbone) -> list[int]:
    network: Any = backbone.model
    return [stage["num_chs"] for stage in network.feature_info]


def _standardise(values: Tensor) -> Tensor:
    """Return each channel of `[B, C, ...]` with mean 0 and deviation 1 over the batch."""
    return functional.batch_norm(values, None, None, training=True)


class PretextBackbone(nn.Module):
    """A backbone whose features are standardised over the batch before the pretext's heads.

    The pooled features of a fresh network are nearly the same for every photo. Standardising makes what differs
    visible to the heads from the first step, without which nothing is learned for the first ten thousand photos.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.standardise = nn.BatchNorm1d(backbone.num_features, affine=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return standardised features `[B, D]`."""
        features: Tensor = self.standardise(self.backbone(images))
        return features

    def with_maps(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return what `forward` returns, and the maps `[B, C, H, W]` of all stages."""
        pooled, maps = _features_and_maps(self.backbone, images, None)
        return self.standardise(pooled), maps


def _features_and_maps(backbone: Backbone, images: Tensor, num_maps: int | None) -> tuple[Tensor, list[Tensor]]:
    """Return pooled features `[B, D]` and the maps of the last stages (`None`: of all), by timm's own methods."""
    network: Any = backbone.model
    final, maps = network.forward_intermediates(images, indices=num_maps)
    return network.forward_head(final), maps


class PretextModel(BaselineModel):
    """A backbone with the four heads and one for the shape of the type, and in training a teacher."""

    def __init__(
        self, backbone: Backbone, classes: ClassLists, num_measures: int, teacher: Teacher | None = None
    ) -> None:
        pretext = PretextBackbone(backbone)
        super().__init__(pretext, Heads(backbone.num_features, classes, TASKS, dropout=0.0))
        self._with_maps = pretext.with_maps
        self.shape_head = nn.Linear(backbone.num_features, num_measures)
        self.teacher = teacher

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the outputs of the heads for uint8 images `[B, 3, H, W]`, and `shape`, `[B, measures]`.

        In training also the errors that the teacher finds, `features` and `maps`.
        """
        if self.teacher is None or not self.training:
            return self._answers(self.get_features(images))
        normalised = self.normalise(images)
        features, maps = self._with_maps(normalised)
        return self._answers(features) | self.teacher.errors(normalised, features, maps)

    def _answers(self, features: Tensor) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = self.heads(features)
        return outputs | {"shape": self.shape_head(features)}
