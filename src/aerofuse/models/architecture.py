"""What a model is made of, as plain values: enough to build it again from its file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aerofuse.backbones.backbone import Backbone
from aerofuse.backbones.create import create_backbone
from aerofuse.data.labels import TASKS, ClassLists
from aerofuse.models.aircraft_model import AircraftModel
from aerofuse.models.baseline import BaselineModel
from aerofuse.models.fusion import create_fusion
from aerofuse.models.heads import Heads
from aerofuse.models.hybrid import HybridModel


@dataclass(frozen=True)
class Architecture:
    """A baseline where `transformer` and `fusion_method` are `None`, else a hybrid."""

    cnn: str
    transformer: str | None
    fusion_method: str | None
    tasks: tuple[str, ...]
    head_dropout: float
    drop_path: float
    image_size_px: int

    def build(self, classes: ClassLists) -> AircraftModel:
        """The model with random weights. Raises `ValueError` for an unknown backbone, fusion or task."""
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
    """A baseline with the heads named by `tasks`."""
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
    """The hybrid with the heads named by `tasks`, by default all four."""
    return Architecture(cnn, transformer, fusion_method, tuple(tasks), head_dropout, drop_path, image_size_px)
