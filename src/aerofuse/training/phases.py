"""The training stages as data: which parts of the model learn, and from where each starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Phase:
    """One training stage. `starts_from` is the model folder it continues, `None` for pretrained backbones."""

    stage: str
    model: Literal["single_task", "multi_task", "hybrid"]
    output: str
    trains: tuple[str, ...]
    starts_from: str | None = None


PHASES: dict[str, Phase] = {
    phase.stage: phase
    for phase in (
        Phase("train_single_task", "single_task", "single_task", trains=("cnn", "heads")),
        Phase("train_multi_task", "multi_task", "multi_task", trains=("cnn", "heads")),
        # Heads first on frozen backbones, so that their first wild gradients spoil nothing (LP-FT, arXiv 2202.10054).
        Phase("train_stage_a", "hybrid", "stage_a", trains=("fusion", "heads")),
        Phase(
            "train_stage_b",
            "hybrid",
            "stage_b",
            trains=("transformer", "fusion", "heads"),
            starts_from="stage_a",
        ),
        Phase(
            "train_stage_c",
            "hybrid",
            "hybrid",
            trains=("cnn", "transformer", "fusion", "heads"),
            starts_from="stage_b",
        ),
    )
}
