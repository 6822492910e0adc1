"""Does a training step fit, with which plan, and how much slower is it: the question as asked, and the answer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from aerofuse.backbones.backbone import Backbone, create_backbone
from aerofuse.backbones.families import family_named, family_of
from aerofuse.checkpointing.budget import format_bytes
from aerofuse.checkpointing.plan import CheckpointingPlan, StepPrediction
from aerofuse.memory.step import Precision
from aerofuse.models.architecture import EXAMPLE_CLASSES, hybrid_architecture
from aerofuse.planning.estimates import LARGE_GPU
from aerofuse.planning.planner import Planner


@dataclass(frozen=True)
class StepQuestion:
    """A step of training with AdamW: of one backbone, or of the hybrid of two.

    `frames` is the length of a clip, for a backbone that takes clips. Raises `ValueError` for what cannot be.
    """

    backbones: tuple[str, ...]
    image_size_px: int = 224
    batch_size: int = 16
    precision: Precision = "float32"
    frames: int = 16
    fusion_method: str = "concat"

    def __post_init__(self) -> None:
        if not 1 <= len(self.backbones) <= 2:
            raise ValueError(f"{len(self.backbones)} backbones are given; name one, or the two of a hybrid")
        if min(self.batch_size, self.image_size_px, self.frames) < 1:
            raise ValueError("batch size, image size and frames must be at least 1")
        clips = [name for name in self.backbones if _takes_clips(name)]
        if clips and len(self.backbones) == 2:
            raise ValueError(f"{clips[0]} takes clips, so it cannot be half of a hybrid, which takes images")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """That of the batch."""
        frames = (self.frames,) if _takes_clips(self.backbones[0]) else ()
        return (self.batch_size, 3, *frames, self.image_size_px, self.image_size_px)

    def __str__(self) -> str:
        shape = " x ".join(map(str, self.input_shape))
        return f"{' + '.join(self.backbones)}, {shape}, {self.precision}, AdamW"

    def make_planner(self) -> Planner:
        """Return the planner of this step, with times of a large GPU; nothing of the model's size is allocated."""
        is_hybrid = len(self.backbones) == 2
        with torch.device("meta"):
            model: nn.Module
            if is_hybrid:
                cnn, transformer = self.backbones
                architecture = hybrid_architecture(cnn, transformer, self.fusion_method, 0.3, 0.1, self.image_size_px)
                model = architecture.build(EXAMPLE_CLASSES)
            else:
                model = _backbone(self.backbones[0], self.image_size_px)
        return Planner(
            model.train(),
            self.input_shape,
            optimizer="adamw",
            precision=self.precision,
            input_dtype=torch.uint8 if is_hybrid else torch.float32,
            stopwatch=LARGE_GPU[self.precision],
        )


def _backbone(name: str, image_size_px: int) -> Backbone:
    try:
        return create_backbone(name, image_size_px=image_size_px, drop_path=0.1)
    except ValueError:  # some networks of timm have none
        return create_backbone(name, image_size_px=image_size_px)


def _takes_clips(backbone: str) -> bool:
    return family_named(family_of(backbone)).input_dims == 5


class StepAnswer:
    """What a step takes without checkpointing, with plans that cost some time, and the least within twice the time.

    Making one takes seconds to a minute. Raises `ValueError` for a model that cannot be built or planned.
    """

    def __init__(self, question: StepQuestion) -> None:
        self.question = question
        self._planner = question.make_planner()
        self.least = self._planner.least()
        self._least_of_all = self._planner.least(most_time_ratio=math.inf)
        self._curve = self._planner.curve()
        self.baseline = self._planner.baseline

    @cached_property
    def points(self) -> Mapping[str, StepPrediction]:
        """Name of a plan: what it is predicted to take; from the most memory to the least."""
        points = {"no checkpointing": self.baseline}
        for slower in (0.05, 0.10, 0.20):
            fitting = [point for point in self._curve if 1 < point.time_ratio <= 1 + slower]
            if fitting:
                points[f"at most {slower:.0%} slower"] = min(fitting, key=lambda point: point.peak_bytes)
        points["least memory"] = self.least
        return points

    def fits(self, memory_bytes: int) -> bool:
        """Return whether any plan does."""
        return self._least_of_all.peak_bytes <= memory_bytes

    def refusal(self, memory_bytes: int) -> str:
        """Return what to say where it does not fit."""
        batch = self._largest_batch(memory_bytes, self._least_of_all)
        hint = f"a batch of about {batch} would" if batch >= 1 else "no batch would"
        memory, fixed = format_bytes(memory_bytes), format_bytes(self._planner.fixed_bytes)
        return f"It does not fit into {memory}; {hint} (the model alone takes {fixed})."

    def plan(self, memory_bytes: int) -> CheckpointingPlan:
        """Return the fastest plan for a memory that it fits into."""
        return self._planner.plan(memory_bytes)

    def describe(self, plan: CheckpointingPlan, memory_bytes: int) -> list[str]:
        """Return what to say of the plan for that memory, in sentences."""
        memory = format_bytes(memory_bytes)
        if plan.saves_everything:
            verdict = f"It fits into {memory} without checkpointing: {format_bytes(self.baseline.peak_bytes)}."
        else:
            peak, slower = format_bytes(plan.predicted.peak_bytes), plan.predicted.time_ratio - 1
            verdict = f"It fits into {memory} with a plan: peak {peak}, about {slower:.0%} slower."
        without, least = (self._largest_batch(memory_bytes, point) for point in (self.baseline, self.least))
        return [
            verdict,
            f"Largest batch without checkpointing: about {without}.",
            f"Largest batch with a plan of at most twice the time: about {least}.",
            "Leave some room for the work space of kernels and for fragments: 5 to 10 % on a GPU.",
        ]

    def _largest_batch(self, memory_bytes: int, point: StepPrediction) -> int:
        fixed_bytes = self._planner.fixed_bytes
        return int(self.question.batch_size * (memory_bytes - fixed_bytes) / (point.peak_bytes - fixed_bytes))
