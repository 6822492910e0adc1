"""Baselines and the hybrid: how each is built, and the record from which it can be built again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from aerofuse.backbones.backbone import Backbone, Features, create_backbone
from aerofuse.data.labels import TASKS, ClassLists
from aerofuse.models.aircraft_model import AircraftModel, Normalise
from aerofuse.models.fusion import BranchSize, Fusion, check_fusion_method, create_fusion
from aerofuse.models.heads import Heads

# For networks whose memory or time is of interest, and not their answers: FGVC-Aircraft's variants, and some airlines.
EXAMPLE_CLASSES = ClassLists(tuple(map(str, range(100))), tuple(map(str, range(12))))


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
        features: Tensor = self.run_part("cnn", self.normalise(images))
        return features


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

    def branch_features(self, images: Tensor) -> dict[str, Features]:
        """Return the features that each branch finds in uint8 images `[B, 3, H, W]`, the CNN's first."""
        normalised = self.normalise(images)
        found = {name: self.run_part(name, normalised) for name in ("cnn", "transformer")}
        return {name: one if isinstance(one, Features) else Features(one) for name, one in found.items()}

    def get_features(self, images: Tensor) -> Tensor:
        """Return the fused features `[B, fusion.num_features]`."""
        return self.fuse(self.branch_features(images))

    def fuse(self, features: Mapping[str, Features]) -> Tensor:
        """Return the fused features of those of the branches."""
        fused: Tensor = self.run_part("fusion", features["cnn"], features["transformer"])
        return fused


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
    sees_mirrored: bool = False

    def build(self, classes: ClassLists) -> AircraftModel:
        """Return the model with random weights. Raises `ValueError` for an unknown backbone, fusion or task."""
        model = self._build(classes)
        model.sees_mirrored = self.sees_mirrored
        return model

    def _build(self, classes: ClassLists) -> AircraftModel:
        if self.transformer is None or self.fusion_method is None:
            cnn = self._backbone(self.cnn)
            return BaselineModel(cnn, Heads(cnn.num_features, classes, self.tasks, self.head_dropout))
        check_fusion_method(self.fusion_method)  # before anything is loaded
        cnn, transformer = self._backbone(self.cnn), self._backbone(self.transformer)
        fusion = create_fusion(self.fusion_method, BranchSize.of(cnn), BranchSize.of(transformer))
        for backbone in (cnn, transformer):
            backbone.give_map(fusion.reads_maps)
        heads = Heads(fusion.num_features, classes, self.tasks, self.head_dropout)
        return HybridModel(cnn, transformer, fusion, heads)

    def _backbone(self, name: str) -> Backbone:
        return create_backbone(name, image_size_px=self.image_size_px, drop_path=self.drop_path)


def hybrid_architecture(
    cnn: str, transformer: str, fusion_method: str, head_dropout: float, drop_path: float, image_size_px: int
) -> Architecture:
    """Return the architecture of the hybrid with all four heads."""
    return Architecture(cnn, transformer, fusion_method, TASKS, head_dropout, drop_path, image_size_px)
