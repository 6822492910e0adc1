"""Batches and plans for the memory that there is: what is chosen fits, hardly anything larger would."""

from __future__ import annotations

import logging
import math
import random
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import aerofuse
from aerofuse.common.hardware import DeviceMemory
from aerofuse.common.params import load_section
from aerofuse.data.labels import TASKS, ClassLists
from aerofuse.memory.report import MemoryReport
from aerofuse.memory.step import count_training_step
from aerofuse.models.aircraft_model import AircraftModel
from aerofuse.models.architecture import BaselineModel
from aerofuse.models.heads import Heads
from aerofuse.planning.estimates import LARGE_GPU
from aerofuse.training import step_memory
from aerofuse.training.fitting import Fit, fit_training, largest_that_fits
from aerofuse.training.params import CheckpointingParams, PhaseParams, TrainingParams
from aerofuse.training.step_memory import StepMemory
from tests.models.architectures import baseline_architecture

PARAMS = load_section(TrainingParams, "recipes.{recipe}.training")
CLASSES = ClassLists(tuple("abcdefg"), tuple("uvw"))
SIZE_PX = 64
MIB = 2**20
Room = Callable[[int], None]


def small_model() -> AircraftModel:
    """With dropout and drop-path, so that a step draws random numbers."""
    torch.manual_seed(0)
    return baseline_architecture("convnext_thin", TASKS, 0.1, 0.1, SIZE_PX).build(CLASSES)


def tiny_model() -> AircraftModel:
    """It has no backbone that could be checkpointed, and is counted in no time."""
    torch.manual_seed(0)
    cnn = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return BaselineModel(cnn, Heads(8, CLASSES, TASKS, dropout=0.1))


def training(largest_batch_size: int = 256, reserve: float = 0.0, **checkpointing: Any) -> TrainingParams:
    settings = {"policy": "none"} | checkpointing
    return PARAMS.model_copy(
        update={
            "gradient_checkpointing": CheckpointingParams.model_validate(settings),
            "memory_reserve": reserve,
            "largest_batch_size": largest_batch_size,
        }
    )


def fit(
    model: AircraftModel,
    batch_size: int | str,
    params: TrainingParams,
    *,
    accumulation_steps: int = 1,
    num_images: int = 10_000,
    num_processes: int = 1,
) -> Fit:
    phase = PhaseParams.model_validate(
        {"epochs": 1, "learning_rate": 0.1, "batch_size": batch_size, "accumulation_steps": accumulation_steps}
    )
    step = StepMemory(model, SIZE_PX, params, accumulation_steps)
    return fit_training(step, num_images, phase, params, num_processes)


def counted(model: AircraftModel, batch_size: int) -> MemoryReport:
    """The step under the model's present policy."""
    return count_training_step(model, (batch_size, 3, SIZE_PX, SIZE_PX), input_dtype=torch.uint8, fake=True)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Room:
    """Says what is free beside the model; on this machine that depends on who else works there."""

    def give(num_bytes: int) -> None:
        memory = DeviceMemory(total_bytes=num_bytes, free_bytes=num_bytes)
        monkeypatch.setattr(step_memory, "memory_of", lambda device: memory)

    return give


def _no_step(*_: object) -> MemoryReport:
    raise AssertionError("a step was run")


def test_what_is_told_is_done_and_nothing_is_run(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    room(1)  # less than anything needs
    monkeypatch.setattr(StepMemory, "run", _no_step)
    monkeypatch.setattr(StepMemory, "planner", _no_step)
    model = tiny_model()
    found = fit(model, 32, training())
    assert (found.batch_size, found.validation_batch_size, found.plan) == (32, 32, None)
    assert found.predicted_peak_bytes == counted(model, 32).peak_bytes
    assert found.policy == "no checkpointing"
    backbone = small_model()
    segmented = fit(backbone, 32, training(policy="segments", segments=3))
    assert segmented.policy == "3 segments a backbone"
    assert segmented.predicted_peak_bytes == counted(backbone, 32).peak_bytes


@pytest.mark.parametrize(
    ("policy", "words"),
    [("recompute_all", "every unit is computed again"), ("selective", "what is expensive to compute is saved")],
)
def test_policies_without_settings(policy: str, words: str, room: Room) -> None:
    room(1)
    model = small_model()
    baseline_bytes = counted(model, 32).peak_bytes
    found = fit(model, 32, training(policy=policy))
    assert found.policy == words
    assert found.predicted_peak_bytes == counted(model, 32).peak_bytes < baseline_bytes


def test_a_ready_plan(room: Room, tmp_path: Path) -> None:
    room(2**40)
    step, path = StepMemory(small_model(), SIZE_PX, training(), 1), tmp_path / "plan.json"
    plan = step.planner(16, LARGE_GPU["float32"]).plan(0.6)
    plan.save(path)
    model = small_model()
    found = fit(model, 16, training(policy="plan", plan=str(path)))
    assert found.policy == plan.summary()
    assert found.predicted_peak_bytes == plan.predicted.peak_bytes == counted(model, 16).peak_bytes
    assert fit(small_model(), "auto", training(policy="plan", plan=str(path))).batch_size == 16
    frozen = small_model().train_only(["heads"])
    words = "nothing is checkpointed, for no backbone learns"
    assert fit(frozen, 16, training(policy="plan", plan=str(path))).policy == words
    with pytest.raises(
        ValueError, match=r"gradient_checkpointing\.plan is .*plan\.json: .* batches of up to 16, not 17"
    ):
        fit(small_model(), 17, training(policy="plan", plan=str(path)))
    transformer = baseline_architecture("swin_thin", TASKS, 0.1, 0.1, SIZE_PX).build(CLASSES)
    with pytest.raises(ValueError, match=r"gradient_checkpointing\.plan is .*plan\.json: .* another network"):
        fit(transformer, 16, training(policy="plan", plan=str(path)))


def test_the_largest_batch_without_checkpointing(room: Room) -> None:
    room(2 * MIB)
    model = tiny_model()
    found = fit(model, "auto", training())
    assert found.available_bytes > 2 * MIB  # the model is there already
    assert found.predicted_peak_bytes == counted(model, found.batch_size).peak_bytes <= found.available_bytes
    assert counted(model, found.batch_size + 1).peak_bytes > found.available_bytes


def test_the_largest_batch_in_segments(room: Room) -> None:
    room(30 * MIB)
    model = small_model()
    baseline_bytes = counted(model, 48).peak_bytes
    found = fit(model, "auto", training(largest_batch_size=48, policy="segments", segments=3))
    assert found.batch_size == 48
    assert found.predicted_peak_bytes == counted(model, 48).peak_bytes <= found.available_bytes < baseline_bytes


def test_a_batch_is_never_above_what_is_asked_for(room: Room) -> None:
    room(2**40)
    assert fit(tiny_model(), "auto", training(largest_batch_size=5)).batch_size == 5
    assert fit(tiny_model(), "auto", training(), num_images=7).batch_size == 7


def test_the_reserve_is_left_alone(room: Room) -> None:
    room(2 * MIB)
    whole = fit(tiny_model(), "auto", training())
    less = fit(tiny_model(), "auto", training(reserve=0.2))
    assert less.available_bytes == whole.available_bytes - round(0.2 * 2 * MIB)
    assert less.predicted_peak_bytes <= less.available_bytes < whole.predicted_peak_bytes


def _random_states() -> tuple[list[int], object, str]:
    return torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())


@pytest.mark.timed
def test_a_plan_for_what_is_free(room: Room, caplog: pytest.LogCaptureFixture) -> None:
    """While gradients are accumulated, which wait beside the next batch."""
    caplog.set_level(logging.INFO)
    model = small_model()
    room(round(0.7 * counted(model, 16).peak_bytes))
    before = _random_states()
    found = fit(model, 16, training(policy="budget", budget="auto"), accumulation_steps=2)
    assert _random_states() == before

    assert found.plan is not None
    assert found.plan.predicted.peak_bytes == counted(model, 16).peak_bytes
    assert found.plan.predicted.peak_bytes < found.predicted_peak_bytes <= found.available_bytes
    assert found.batch_size == 16
    # In validation no more is held than in training.
    assert found.validation_batch_size in {16, 32, 64}
    step = StepMemory(model, SIZE_PX, training(), 1)
    assert step.count_evaluation(found.validation_batch_size) <= found.available_bytes
    assert "batch 16 confirmed by a real step" in caplog.text
    # Nothing else has changed.
    untouched = small_model()
    for name, value in untouched.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [module.training for module in model.modules()] == [module.training for module in untouched.modules()]


def test_no_plan_where_all_fits(room: Room) -> None:
    room(2**40)
    model = small_model()
    found = fit(model, 4, training(policy="budget", budget="auto"))
    assert found.plan is None
    assert found.policy == "nothing is checkpointed, for all fits"
    assert not any(backbone.is_gradient_checkpointing_enabled() for backbone in model.backbones().values())
    assert (found.batch_size, found.validation_batch_size) == (4, 16)


@pytest.mark.slow  # `test_stage.py` does as much
def test_a_larger_batch_fits_with_its_plan(room: Room) -> None:
    """Within the budget that is told, of much more that is free."""
    room(2**40)
    model = small_model()
    baseline_bytes = counted(model, 48).peak_bytes
    found = fit(model, "auto", training(largest_batch_size=48, policy="budget", budget="40 MiB"))
    assert found.batch_size == 48
    assert found.plan is not None
    assert found.predicted_peak_bytes == counted(model, 48).peak_bytes <= 40 * MIB < baseline_bytes


@pytest.mark.slow
def test_the_largest_batch_with_its_plan(room: Room) -> None:
    room(30 * MIB)
    model = small_model()
    found = fit(model, "auto", training(policy="budget", budget="auto"))
    assert found.plan is not None
    assert found.predicted_peak_bytes == counted(model, found.batch_size).peak_bytes <= found.available_bytes
    step = StepMemory(model, SIZE_PX, training(), 1)
    assert step.planner(math.ceil(1.1 * found.batch_size)).least().peak_bytes > found.available_bytes


@pytest.mark.slow
def test_the_largest_batch_at_a_share(room: Room) -> None:
    room(20 * MIB)
    found = fit(small_model(), "auto", training(policy="budget", budget=0.6))
    assert found.plan is not None
    assert found.predicted_peak_bytes <= found.available_bytes < 1.1 * found.predicted_peak_bytes
    assert found.plan.predicted.activation_bytes <= 0.6 * found.plan.baseline.activation_bytes


def test_where_no_backbone_learns_nothing_is_planned(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    room(2 * MIB)
    monkeypatch.setattr(StepMemory, "planner", _no_step)
    found = fit(tiny_model(), "auto", training(policy="budget", budget="auto"))
    assert found.predicted_peak_bytes <= found.available_bytes
    assert found.policy == "nothing is checkpointed, for no backbone learns"
    monkeypatch.setattr(StepMemory, "run", _no_step)
    frozen = small_model().train_only(["heads"])
    assert fit(frozen, 1000, training(policy="budget", budget="auto")).batch_size == 1000
    with pytest.raises(
        ValueError, match=r"a batch of 64 does not fit into 3 MiB .*: the least is .*; .*a larger budget"
    ):
        fit(frozen, 64, training(policy="budget", budget="3 MiB"))


def test_not_one_image_fits(room: Room) -> None:
    room(MIB // 100)
    message = (
        r"a batch of 1 does not fit into \d.* KiB on .*: the least is \d.* KiB, \d.* KiB of it for parameters "
        r"and the like; mixed_precision: bf16, smaller images, a smaller memory_reserve would help"
    )
    with pytest.raises(ValueError, match=message):
        fit(tiny_model(), "auto", training())
    with pytest.raises(ValueError, match=r"gradient_checkpointing: {policy: budget, budget: auto}, smaller"):
        fit(small_model(), "auto", training(largest_batch_size=1))


@pytest.mark.parametrize(
    ("batch_size", "message"),
    [
        ("auto", r"a batch of 1 does not fit into \d.* MiB .*: the least is \d.* MiB"),
        (4, r" has \d.* MiB for a training step; a budget of \d.* MiB is too little .* the least is \d.* MiB"),
    ],
)
def test_not_even_the_least_plan_fits(batch_size: int | str, message: str, room: Room) -> None:
    room(2 * MIB)
    with pytest.raises(ValueError, match=message):
        fit(small_model(), batch_size, training(largest_batch_size=1, policy="budget", budget="auto"))


def test_several_processes_are_refused(room: Room) -> None:
    room(2**40)
    with pytest.raises(ValueError, match="auto is found for one process, and there are 2; train in one"):
        fit(tiny_model(), "auto", training(), num_processes=2)
    assert fit(tiny_model(), 4, training(), num_processes=2).batch_size == 4


# The address space is as good as a device: an allocation beyond it fails as one does on a machine without overcommit.
_TOO_LITTLE = """
import logging, resource, sys
import psutil, torch
from tests.training.test_fitting import fit, tiny_model, training

torch.set_num_threads(1)
logging.basicConfig(level=logging.INFO, format="%(message)s")
model = tiny_model()
fit(model, "auto", training(largest_batch_size=4))  # loads what a first step loads
room = psutil.Process().memory_info().vms + {room_bytes}
resource.setrlimit(resource.RLIMIT_AS, (room, room))
found = fit(model, "auto", training(largest_batch_size={batch_size}), num_images={batch_size})
sys.stdout.write(str(found.batch_size))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_where_the_memory_runs_out_a_tenth_less_is_tried() -> None:
    batch_size = 15_000
    room_bytes = round(0.9 * counted(tiny_model(), batch_size).peak_bytes)
    script = _TOO_LITTLE.format(room_bytes=room_bytes, batch_size=batch_size)
    environment = {"PYTHONPATH": f"{Path(aerofuse.__file__).parents[1]}:{Path(__file__).parents[2]}"}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert f"no room for a step of batch {batch_size} (no checkpointing); trying again within" in run.stderr
    assert 0.6 * batch_size < int(run.stdout) < batch_size


def test_a_device_that_never_has_room(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_step: StepMemory, batch_size: int) -> MemoryReport:
        tried.append(batch_size)
        raise torch.OutOfMemoryError("CUDA out of memory.")

    tried: list[int] = []
    monkeypatch.setattr(StepMemory, "run", run)
    room(2 * MIB)
    with pytest.raises(ValueError, match=r"has no room for what was planned, 4 times .* Within 1\.\d+ MiB it may fit"):
        fit(tiny_model(), "auto", training(largest_batch_size=1000))
    assert tried == sorted(tried, reverse=True)
    assert len(set(tried)) == 4


def test_other_errors_of_a_step_are_not_taken_for_a_lack_of_memory(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_step: StepMemory, batch_size: int) -> MemoryReport:
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(StepMemory, "run", run)
    room(2**40)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        fit(tiny_model(), "auto", training(largest_batch_size=2))


def _affine(batch_size: int, fixed: int, each: int) -> int:
    return fixed + each * batch_size


def _with_a_floor(batch_size: int) -> int:
    return max(4000, 1000 + 37 * batch_size)  # the optimiser's step takes the most in small batches


def _concave(batch_size: int) -> int:
    return 1000 + round(900 * math.pow(batch_size, 0.7))


@pytest.mark.parametrize(
    "peak_of", [partial(_affine, fixed=1000, each=37), _with_a_floor, _concave], ids=["affine", "floor", "concave"]
)
@pytest.mark.parametrize("tolerance", [0.0, 0.02])
def test_the_search_finds_the_largest(peak_of: Callable[[int], int], tolerance: float) -> None:
    asked: list[int] = []

    def ask(batch_size: int) -> int:
        asked.append(batch_size)
        return peak_of(batch_size)

    for wanted in (1, 2, 9, 100, 131, 255, 256):
        asked.clear()
        limit = peak_of(wanted)
        largest = max(batch for batch in range(1, 257) if peak_of(batch) <= limit)
        found = largest_that_fits(ask, limit, 256, 1000, tolerance)
        assert (1 - tolerance) * largest - 1 <= found <= largest if tolerance else found == largest
        assert len(asked) <= (6 if tolerance else 12)
    assert largest_that_fits(ask, peak_of(1) - 1, 256, 1000, tolerance) == 0
    assert largest_that_fits(ask, 10, 256, 1000, tolerance) == 0


def test_offload_is_for_a_gpu_and_reaches_the_planner(monkeypatch: pytest.MonkeyPatch) -> None:
    params = training(policy="budget", budget=0.5, offload=True)
    with pytest.raises(ValueError, match="offload is true, but this is a CPU"):
        fit(tiny_model(), 2, params)
    asked: list[bool] = []
    monkeypatch.setattr(step_memory, "Planner", lambda *_, offload, **__: asked.append(offload))
    StepMemory(tiny_model(), SIZE_PX, params, 1).planner(2)
    StepMemory(tiny_model(), SIZE_PX, training(policy="budget", budget=0.5), 1).planner(2)
    assert asked == [True, False]
    with pytest.raises(ValueError, match="offload is true, but policy is selective"):
        training(policy="selective", offload=True)
