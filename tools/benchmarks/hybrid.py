"""The hybrid of a recipe, to be measured as a whole, and the time that it takes to plan for it."""

from __future__ import annotations

import os
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from tempfile import TemporaryDirectory

import torch

from aerofuse.backbones.weights import BackboneParams
from aerofuse.common.params import load_section, load_value
from aerofuse.models.architecture import EXAMPLE_CLASSES, hybrid_architecture
from aerofuse.planning.estimates import LARGE_GPU
from aerofuse.planning.planner import Planner
from aerofuse.planning.seen_before import FOLDER_VARIABLE
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
    """Time how a step of a recipe's last phase is planned by a new process: from nothing, and by another one after it.

    The second one reads from disk what the first has kept of each kind of unit.
    """
    with TemporaryDirectory() as folder:
        seconds, seconds_again = (_in_new_process(recipe, folder) for _ in range(2))
    subject = hybrid_subject(recipe, device="meta")
    shape = subject.input_shape(_batch_size(recipe))
    return Planning(subject.variant, "x".join(map(str, shape)), "bf16", round(seconds, 2), round(seconds_again, 2))


def _in_new_process(recipe: str, profiles: str) -> float:
    with ProcessPoolExecutor(1, get_context("spawn"), _keep_profiles, (profiles,)) as process:
        return process.submit(plan_hybrid, recipe).result()


def _keep_profiles(folder: str) -> None:
    os.environ[FOLDER_VARIABLE] = folder


def plan_hybrid(recipe: str) -> float:
    """Plan that step, AdamW in bf16: the curve, the least, half of the memory. Return the seconds that it took."""
    subject = hybrid_subject(recipe, device="meta")
    shape = subject.input_shape(_batch_size(recipe))
    started = time.perf_counter()
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
    return time.perf_counter() - started


def _batch_size(recipe: str) -> int:
    return load_value(int, f"recipes.{recipe}.train_stage_c.batch_size")
