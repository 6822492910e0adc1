"""The hybrid: a CNN and a transformer see the same image, their features are fused, all heads read the result."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from aerofuse.models.aircraft_model import AircraftModel
from aerofuse.models.fusion import Fusion
from aerofuse.models.heads import Heads
from aerofuse.models.preprocessing import Normalise


class HybridModel(AircraftModel):
    """Two backbones, a fusion, four heads."""

    def __init__(self, cnn: nn.Module, transformer: nn.Module, fusion: Fusion, heads: Heads) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.cnn = cnn
        self.transformer = transformer
        self.fusion = fusion
        self.heads = heads

    def parts(self) -> Mapping[str, nn.Module]:
        return {
            "cnn": self.cnn,
            "transformer": self.transformer,
            "fusion": self.fusion,
            "heads": self.heads,
        }

    def get_branch_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The pooled features of the CNN `[B, d_cnn]` and of the transformer `[B, d_trf]`, before fusion."""
        normalised = self.normalise(images)
        return self.run_part("cnn", normalised), self.run_part("transformer", normalised)

    def get_features(self, images: Tensor) -> Tensor:
        """The fused features `[B, fusion.num_features]`."""
        return self.run_part("fusion", *self.get_branch_features(images))
