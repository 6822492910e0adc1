"""What a training did."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass
class TrainingReport:
    """Metrics per epoch, the best epoch, and the time spent in training steps."""

    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    images: int = 0
    peak_memory_bytes: int | None = None  # of a GPU's allocator in training steps, where the hooks have a meter for it
    saving_seconds: float = 0.0  # spent on the state to resume from
    resumed: int = 0  # how often the training went on from a state

    @property
    def images_per_second(self) -> float:
        """Training speed, validation and loading of the model left out."""
        return self.images / self.seconds if self.seconds else math.nan
