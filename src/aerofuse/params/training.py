"""Sections that say how a model is trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from aerofuse.params.section import Section


class TaskWeights(Section):
    """Weight of each head's loss in the sum; a model without a head ignores its weight."""

    type: float = Field(ge=0)
    airline: float = Field(ge=0)
    clarity: float = Field(ge=0)
    block: float = Field(ge=0)


class AugmentationParams(Section):
    """Only what leaves clarity and block true: mirroring and colour."""

    horizontal_flip: bool
    color_jitter: float = Field(ge=0, le=0.5, description="largest relative change of brightness, contrast, saturation")


class CheckpointingParams(Section):
    """Gradient checkpointing: less memory for more time, the same result."""

    enabled: bool
    segments: int | None = Field(ge=1, description="ranges of a backbone; null: every unit is computed again")


class TrainingParams(Section):
    """What all training stages of a recipe share."""

    mixed_precision: Literal["no", "bf16", "fp16"]
    weight_decay: float = Field(ge=0)
    gradient_clip: float = Field(gt=0, description="largest gradient norm")
    warmup_fraction: float = Field(
        ge=0, lt=1, description="share of the steps that the rate rises over; then cosine to 0"
    )
    task_weights: TaskWeights
    augmentation: AugmentationParams
    gradient_checkpointing: CheckpointingParams
    num_workers: int = Field(ge=0)


class PhaseParams(Section):
    """One training stage: how long, how fast, in which portions."""

    epochs: int = Field(ge=1)
    learning_rate: float = Field(gt=0, le=1)
    batch_size: int = Field(ge=1)
    accumulation_steps: int = Field(ge=1, description="batches whose gradients are summed before a step")
