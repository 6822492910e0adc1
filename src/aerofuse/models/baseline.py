"""The baselines: one CNN backbone, with the type head alone or with all four."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from aerofuse.models.aircraft_model import AircraftModel
from aerofuse.models.heads import Heads
from aerofuse.models.preprocessing import Normalise


class BaselineModel(AircraftModel):
    """A backbone and its heads. Single-task and multi-task differ in nothing but the heads."""

    def __init__(self, cnn: nn.Module, heads: Heads) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.cnn = cnn
        self.heads = heads

    def parts(self) -> Mapping[str, nn.Module]:
        return {"cnn": self.cnn, "heads": self.heads}

    def get_features(self, images: Tensor) -> Tensor:
        return self.run_part("cnn", self.normalise(images))
