"""The hybrid of a recipe, to be measured as a whole, and the time that it takes to plan for it."""

from __future__ import annotations

import time
from functools import partial

import torch

from aerofuse.backbones.weights import BackboneParams
from aerofuse.common.params import load_section, load_value
from aerofuse.models.architecture import EXAMPLE_CLASSES, hybrid_architecture
from aerofuse.planning.estimates import LARGE_GPU
from aerofuse.planning.planner import Planner
from aerofuse.planning.seen_before import nothing_seen_before
from aerofuse.training.params import HeadDropoutParams
from tools.benchmarks.results import Planning
from tools.benchmarks.subjects import Subject


def hybrid_subject(recipe: str, image_size_px: int | None = None, device: torch.device | str = "cpu") -> Subject:
    """The hybrid of a recipe of params.yaml with random weights; by default for the recipe's own image size.

    Raises `ValueError` where params.yaml has no such recipe.
    """
    backbones = load_section(BackboneParams, f"recipes.{recipe}.backbones")
    dropout = load_section(HeadDropoutParams, f"recipes.{recipe}.head_dropout").hybrid
    size = image_size_px or load_value(int, f"recipes.{recipe}.image_size")
    architecture = hybrid_architecture(
        backbones.cnn, backbones.transformer, load_value(str, "fusion_method"), dropout, backbones.drop_path, size
    )
    with torch.device("meta" if str(device) == "meta" else "cpu"):
        model = architecture.build(EXAMPLE_CLASSES).to(device).train()
    resized = partial(hybrid_subject, recipe, device=device)
    return Subject("hybrid", f"hybrid of {recipe}", 1, model, (3, size, size), resized, torch.uint8)


def time_planning(recipe: str = "base") -> Planning:
    """Plan a step of a recipe's last phase, AdamW in bf16, from nothing: the curve, the least, half of the memory.

    Nothing is read that an earlier process kept on disk.
    """
    subject = hybrid_subject(recipe, device="meta")
    shape = subject.input_shape(load_value(int, f"recipes.{recipe}.train_stage_c.batch_size"))
    started = time.perf_counter()
    with nothing_seen_before():
        planner = Planner(
            subject.model,
            shape,
            optimizer="adamw",
            precision="bf16",
            input_dtype=subject.input_dtype,
            stopwatch=LARGE_GPU["bf16"],
        )
        planner.least()
        planner.plan(0.5)
    seconds = time.perf_counter() - started
    return Planning(subject.variant, "x".join(map(str, shape)), "bf16", round(seconds, 2))
