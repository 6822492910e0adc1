from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from aerofuse.common.params import load_section
from aerofuse.data.dataset import PreparedSplit, TrainingLoader
from aerofuse.data.labels import TASKS, ClassLists
from aerofuse.models.aircraft_model import AircraftModel
from aerofuse.training.loop import Hooks, train
from aerofuse.training.params import PhaseParams, TrainingParams
from aerofuse.training.state import TrainingReport
from aerofuse.training.state_folder import StateFolder
from tests.models.architectures import baseline_architecture

PARAMS = load_section(TrainingParams, "recipes.{recipe}.training")


def _phase(**changes: float) -> PhaseParams:
    values = {"epochs": 2, "learning_rate": 1e-3, "batch_size": 32, "accumulation_steps": 1}
    return PhaseParams.model_validate(values | changes)


def _train(
    folder: Path,
    classes: ClassLists,
    phase: PhaseParams,
    scores: Mapping[int, float] | None = None,
    prepare: Callable[[AircraftModel], object] = lambda model: model,
    states: StateFolder | None = None,
    **changes: Any,
) -> tuple[AircraftModel, TrainingReport, list[int]]:
    """Train a small multi-task model; the epochs that were kept as best."""
    torch.manual_seed(0)
    model = baseline_architecture("convnext_thin", TASKS, 0.1, 0.1, 96).build(classes)
    prepare(model)
    kept: list[int] = []
    epoch = iter(range(1, phase.epochs + 1))
    hooks = Hooks(
        evaluate=lambda _: {"score": (scores or {}).get(next(epoch), 0.0)},
        on_epoch=lambda *_: None,
        on_best=lambda _, epoch, __: kept.append(epoch),
    )
    assert isinstance(phase.batch_size, int)
    split = PreparedSplit(folder / "train.arrow", classes)
    loader = TrainingLoader(split, batch_size=phase.batch_size, num_workers=0, seed=0)
    params = PARAMS.model_copy(update=changes)
    return model, train(model, loader, phase, params, Accelerator(cpu=True), hooks, states), kept


def test_the_loss_falls(prepared_folder: Path, classes: ClassLists) -> None:
    _, report, _ = _train(prepared_folder, classes, _phase(epochs=4, learning_rate=3e-3))
    losses = [row["train_loss"] for row in report.history]
    assert losses[-1] < 0.9 * losses[0]


def test_twice_the_same_training_gives_the_same_weights(prepared_folder: Path, classes: ClassLists) -> None:
    first, first_report, _ = _train(prepared_folder, classes, _phase())
    second, second_report, _ = _train(prepared_folder, classes, _phase())
    assert first_report.history == second_report.history
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


@pytest.mark.parametrize("segments", [None, 3])
def test_gradient_checkpointing_trains_the_same_weights(
    segments: int | None, prepared_folder: Path, classes: ClassLists
) -> None:
    phase = _phase(epochs=1)
    expected, report, _ = _train(prepared_folder, classes, phase)
    found, checkpointed, _ = _train(
        prepared_folder, classes, phase, prepare=lambda model: model.enable_gradient_checkpointing(segments)
    )
    assert report.history == checkpointed.history
    for name, value in expected.state_dict().items():
        assert torch.equal(value, found.state_dict()[name]), name


def test_all_reported_numbers_are_of_the_epoch_with_the_best_score(prepared_folder: Path, classes: ClassLists) -> None:
    _, report, kept = _train(prepared_folder, classes, _phase(epochs=3), scores={1: 0.2, 2: 0.6, 3: 0.4})
    assert kept == [1, 2]
    assert report.best_epoch == 2
    assert report.best_metrics == {key: value for key, value in report.history[1].items() if key != "epoch"}


def test_images_are_counted_whole(prepared_folder: Path, classes: ClassLists) -> None:
    _, report, _ = _train(prepared_folder, classes, _phase(batch_size=7))
    assert report.images == 2 * len(PreparedSplit(prepared_folder / "train.arrow", classes))


def test_a_training_ends_early_where_nothing_gets_better(prepared_folder: Path, classes: ClassLists) -> None:
    scores = {1: 0.2, 2: 0.6, 3: 0.4, 4: 0.5, 5: 0.9}
    _, report, kept = _train(prepared_folder, classes, _phase(epochs=5), scores, early_stopping=2)
    assert [row["epoch"] for row in report.history] == [1, 2, 3, 4]
    assert kept == [1, 2]


def test_channels_last_changes_roundings_only(prepared_folder: Path, classes: ClassLists) -> None:
    phase = _phase(epochs=1, learning_rate=1e-4)
    expected, _, _ = _train(prepared_folder, classes, phase)
    found, _, _ = _train(
        prepared_folder, classes, phase, prepare=partial(nn.Module.to, memory_format=torch.channels_last)
    )
    weight = found.get_parameter("cnn.model.stages.0.blocks.0.conv_dw.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], value, atol=1e-3, rtol=1e-2)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_compiled_training_gives_the_same_weights_under_the_same_names(
    checkpointed: bool, prepared_folder: Path, classes: ClassLists, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The compiler's own kernels take minutes to make: only what it traces is tested here.
    compiled: list[object] = []

    def trace(model: nn.Module) -> object:
        compiled.append(model)
        return compile_model(model, backend="eager")

    compile_model = torch.compile
    monkeypatch.setattr(torch, "compile", trace)
    phase = _phase(epochs=1)
    expected, report, _ = _train(prepared_folder, classes, phase, weight_averaging=0.9)
    assert not compiled
    states = StateFolder(tmp_path)
    changes: dict[str, Any] = {"compile": True, "weight_averaging": 0.9}
    if checkpointed:
        changes["prepare"] = lambda model: model.enable_gradient_checkpointing()
    found, other, _ = _train(prepared_folder, classes, phase, states=states, **changes)
    assert compiled == [found]
    assert other.history[0]["train_loss"] == pytest.approx(report.history[0]["train_loss"], rel=1e-5)
    saved = states.load()
    assert saved is not None
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(saved["model"][name], value, atol=1e-5, rtol=1e-4)
    _, again, _ = _train(prepared_folder, classes, _phase(epochs=2), states=states, **changes)
    assert again.resumed == 1
    assert again.history[0] == other.history[0]
