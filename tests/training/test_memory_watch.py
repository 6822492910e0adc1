"""What a training holds: predicted, measured without changing a bit, and what would pay."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from aerofuse.common.params import load_section
from aerofuse.data.dataset import PreparedSplit, TrainingLoader
from aerofuse.data.labels import TASKS, ClassLists
from aerofuse.models.aircraft_model import AircraftModel
from aerofuse.tracking.tracker import Tracker
from aerofuse.training.fitting import Fit, fit_training
from aerofuse.training.loop import Hooks, train
from aerofuse.training.memory_watch import (
    AllocatorMeter,
    CountingMeter,
    MemoryMeter,
    MemoryWatch,
    Outlook,
    advise,
    look_ahead,
    make_meter,
)
from aerofuse.training.params import CheckpointingParams, PhaseParams, TrainingParams
from aerofuse.training.state import TrainingReport
from aerofuse.training.step_memory import StepMemory
from tests.models.architectures import baseline_architecture

PARAMS = load_section(TrainingParams, "recipes.{recipe}.training")
CHECKPOINTED = PARAMS.model_copy(update={"gradient_checkpointing": CheckpointingParams(policy="segments", segments=3)})


def _phase(accumulation_steps: int, batch_size: int = 24, epochs: int = 1) -> PhaseParams:
    return PhaseParams(epochs=epochs, learning_rate=1e-3, batch_size=batch_size, accumulation_steps=accumulation_steps)


def _model(classes: ClassLists) -> AircraftModel:
    torch.manual_seed(0)
    return baseline_architecture("convnext_thin", TASKS, 0.1, 0.1, 96).build(classes)


def _fit(model: AircraftModel, phase: PhaseParams, params: TrainingParams) -> tuple[StepMemory, Fit]:
    step = StepMemory(model, 96, params, phase.accumulation_steps)
    return step, fit_training(step, 96, phase, params)


def _train(
    model: AircraftModel, folder: Path, classes: ClassLists, phase: PhaseParams, meter: MemoryMeter
) -> TrainingReport:
    assert isinstance(phase.batch_size, int)
    split = PreparedSplit(folder / "train.arrow", classes)
    loader = TrainingLoader(split, batch_size=phase.batch_size, num_workers=0, seed=0)
    hooks = Hooks(lambda _: {"score": 0.0}, lambda *_: None, lambda *_: None, meter)
    return train(model, loader, phase, PARAMS, Accelerator(cpu=True), hooks)


@pytest.mark.parametrize(("accumulation_steps", "params"), [(1, PARAMS), (2, CHECKPOINTED)])
def test_what_was_predicted_is_measured_and_no_bit_is_changed(
    accumulation_steps: int, params: TrainingParams, prepared_folder: Path, classes: ClassLists
) -> None:
    phase = _phase(accumulation_steps)
    plain = _model(classes)
    report = _train(plain, prepared_folder, classes, phase, MemoryMeter())

    watched, meter = _model(classes), make_meter(torch.device("cpu"))
    _, fit = _fit(watched, phase, params)
    assert isinstance(meter, CountingMeter)
    watched_report = _train(watched, prepared_folder, classes, phase, meter)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name
    assert report.history == watched_report.history
    assert report.peak_memory_bytes is watched_report.peak_memory_bytes is None  # there is no GPU's allocator

    assert meter.peak_bytes is not None
    assert meter.current_bytes is not None
    fixed_bytes = StepMemory(watched, 96, params, 1).fixed_bytes
    assert fixed_bytes < meter.current_bytes < 1.1 * fixed_bytes + 24 * 3 * 96**2
    if accumulation_steps == 1:
        assert meter.peak_bytes == pytest.approx(fit.predicted_peak_bytes, rel=0.001)
    else:  # an upper bound
        assert meter.peak_bytes < 1.001 * fit.predicted_peak_bytes < 1.1 * meter.peak_bytes


@pytest.mark.parametrize(
    ("batch_size", "accumulation_steps", "batch_counted"),
    [(30, 1, 2), (30, 2, 4), (96, 1, 1), (48, 4, 2)],
    ids=["second", "second update", "only one", "last"],
)
def test_one_step_is_counted(
    batch_size: int,
    accumulation_steps: int,
    batch_counted: int,
    prepared_folder: Path,
    classes: ClassLists,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entered: list[int] = []
    seen = 0

    class Spy(CountingMeter):
        def step(self, inputs: torch.Tensor):  # type: ignore[no-untyped-def]
            nonlocal seen
            seen += 1
            context = super().step(inputs)
            if hasattr(context, "gen"):
                entered.append(seen)
            return context

    _train(_model(classes), prepared_folder, classes, _phase(accumulation_steps, batch_size), Spy())
    assert entered == [batch_counted]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_it_is_the_allocators() -> None:
    meter = make_meter(torch.device("cuda"))
    with meter.epoch():
        tensor = torch.zeros(10_000_000, device="cuda")
        del tensor
    assert meter.peak_bytes is not None
    assert meter.current_bytes is not None
    assert meter.peak_bytes >= meter.current_bytes + 40_000_000
    assert isinstance(meter, AllocatorMeter)


class _Notes(Tracker):
    def __init__(self) -> None:
        self.params: dict[str, object] = {}
        self.metrics: dict[str, float] = {}

    def log_params(self, params: Mapping[str, object]) -> None:
        self.params |= params

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self.metrics |= metrics


def test_what_is_said_of_a_stage(prepared_folder: Path, classes: ClassLists, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    model, phase, notes = _model(classes), _phase(1), _Notes()
    step, fit = _fit(model, phase, CHECKPOINTED)
    fit = dataclasses.replace(fit, available_bytes=10**9)
    watch = MemoryWatch(step, fit, largest_batch_size=96)
    watch.announce(notes)
    advice = "batch 96 fits; checkpointing could be off: batch 24 fits without it"
    assert f"memory: {advice}" in caplog.text
    assert "memory: batch 24, 3 segments a backbone; predicted peak " in caplog.text
    assert notes.params["memory"] == {
        "batch_size": 24,
        "predicted_peak_bytes": fit.predicted_peak_bytes,
        "available_bytes": 10**9,
        "policy": "3 segments a backbone",
        "advice": advice,
    }
    assert notes.metrics == {"memory/predicted_peak_bytes": fit.predicted_peak_bytes}
    assert watch.metrics() == {}
    _train(model, prepared_folder, classes, phase, watch.meter)
    assert set(watch.metrics()) == {"memory/peak_bytes", "memory/current_bytes"}
    assert watch.record()["peak_bytes"] == watch.metrics()["memory/peak_bytes"]


def test_the_outlook_compares_with_no_checkpointing(classes: ClassLists) -> None:
    model = _model(classes)
    step, without = _fit(model, _phase(1), PARAMS)
    assert not look_ahead(step, without, 96).checkpointing
    step, fit = _fit(model, _phase(1), CHECKPOINTED)
    outlook = look_ahead(step, fit, 96)
    assert outlook.checkpointing
    assert outlook.peak_bytes == fit.predicted_peak_bytes < outlook.baseline_peak_bytes
    assert outlook.baseline_peak_bytes == without.predicted_peak_bytes
    assert model.train_only(["heads"])
    assert not look_ahead(*_fit(model, _phase(1), CHECKPOINTED), 96).checkpointing


# 4 of parameters and the like, 2 of gradients; a step of batch 32 holds 20, and 40 without checkpointing.
OUTLOOK = Outlook(
    available_bytes=30,
    fixed_bytes=4,
    gradient_bytes=2,
    batch_size=32,
    largest_batch_size=256,
    peak_bytes=20,
    baseline_peak_bytes=40,
    checkpointing=True,
)


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({}, "batch 48 fits; checkpointing could be off at batch 16"),
        ({"largest_batch_size": 50}, "batch 50 fits; checkpointing could be off at batch 16"),
        ({"largest_batch_size": 40}, "checkpointing could be off at batch 16"),
        ({"available_bytes": 1000, "checkpointing": False}, "batch 256 fits"),
        ({"available_bytes": 1000, "largest_batch_size": 50}, "batch 50 fits; checkpointing could be off: batch 32 "),
        ({"available_bytes": 24}, "checkpointing could be off at batch 16"),  # with it, 40 would fit: hardly more
        ({"available_bytes": 20, "baseline_peak_bytes": 400}, ""),
        ({"available_bytes": 3}, ""),
        ({"baseline_peak_bytes": 33}, "batch 48 fits; checkpointing could be off at batch 24"),
        ({"batch_size": 2, "available_bytes": 36}, "batch 4 fits; checkpointing could be off at batch 1"),
        ({"batch_size": 1, "available_bytes": 30}, ""),
    ],
)
def test_advice_is_given_when_it_pays(changes: dict[str, int], advice: str) -> None:
    found = advise(dataclasses.replace(OUTLOOK, **changes))  # type: ignore[arg-type]
    assert found.startswith(advice)
    assert bool(found) == bool(advice)
