"""Baselines and the hybrid: how each is built, and the record from which it can be built again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from aerofuse.backbones.backbone import Backbone, create_backbone
from aerofuse.data.labels import TASKS, ClassLists
from aerofuse.models.aircraft_model import AircraftModel, Normalise
from aerofuse.models.fusion import Fusion, create_fusion
from aerofuse.models.heads import Heads


class BaselineModel(AircraftModel):
    """A backbone and its heads. Single-task and multi-task differ only in the heads."""

    def __init__(self, cnn: nn.Module, heads: Heads) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.cnn = cnn
        self.heads = heads

    def parts(self) -> Mapping[str, nn.Module]:
        return {"cnn": self.cnn, "heads": self.heads}

    def get_features(self, images: Tensor) -> Tensor:
        return self.run_part("cnn", self.normalise(images))


class HybridModel(AircraftModel):
    """Two backbones that see the same image, a fusion, and the heads."""

    def __init__(self, cnn: nn.Module, transformer: nn.Module, fusion: Fusion, heads: Heads) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.cnn = cnn
        self.transformer = transformer
        self.fusion = fusion
        self.heads = heads

    def parts(self) -> Mapping[str, nn.Module]:
        return {"cnn": self.cnn, "transformer": self.transformer, "fusion": self.fusion, "heads": self.heads}

    def get_features(self, images: Tensor) -> Tensor:
        """Return the fused features `[B, fusion.num_features]`."""
        normalised = self.normalise(images)
        return self.run_part("fusion", self.run_part("cnn", normalised), self.run_part("transformer", normalised))


@dataclass(frozen=True)
class Architecture:
    """A baseline where `transformer` and `fusion_method` are `None`, otherwise a hybrid."""

    cnn: str
    transformer: str | None
    fusion_method: str | None
    tasks: tuple[str, ...]
    head_dropout: float
    drop_path: float
    image_size_px: int

    def build(self, classes: ClassLists) -> AircraftModel:
        """Return the model with random weights. Raises `ValueError` for an unknown backbone, fusion or task."""
        if self.transformer is None or self.fusion_method is None:
            cnn = self._backbone(self.cnn)
            return BaselineModel(cnn, Heads(cnn.num_features, classes, self.tasks, self.head_dropout))
        # An unknown method is refused before anything is loaded.
        create_fusion(self.fusion_method, 1, 1)
        cnn, transformer = self._backbone(self.cnn), self._backbone(self.transformer)
        fusion = create_fusion(self.fusion_method, cnn.num_features, transformer.num_features)
        heads = Heads(fusion.num_features, classes, self.tasks, self.head_dropout)
        return HybridModel(cnn, transformer, fusion, heads)

    def _backbone(self, name: str) -> Backbone:
        return create_backbone(name, image_size_px=self.image_size_px, drop_path=self.drop_path)


def baseline_architecture(
    cnn: str, tasks: Sequence[str], head_dropout: float, drop_path: float, image_size_px: int
) -> Architecture:
    """Return the architecture of a baseline with the heads named by `tasks`."""
    return Architecture(cnn, None, None, tuple(tasks), head_dropout, drop_path, image_size_px)


def hybrid_architecture(
    cnn: str,
    transformer: str,
    fusion_method: str,
    head_dropout: float,
    drop_path: float,
    image_size_px: int,
    tasks: Sequence[str] = TASKS,
) -> Architecture:
    """Return the architecture of the hybrid with the heads named by `tasks`, by default all four."""
    return Architecture(cnn, transformer, fusion_method, tuple(tasks), head_dropout, drop_path, image_size_px)
