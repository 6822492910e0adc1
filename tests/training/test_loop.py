from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from aerofuse.backbones.backbone import create_backbone
from aerofuse.common.params import load_section
from aerofuse.data.dataset import PreparedSplit, TrainingLoader
from aerofuse.data.labels import TASKS, ClassLists
from aerofuse.models.aircraft_model import AircraftModel
from aerofuse.models.architecture import baseline_architecture, hybrid_architecture
from aerofuse.training.loop import Hooks, make_optimizer, make_schedule, train
from aerofuse.training.params import PhaseParams, TrainingParams
from aerofuse.training.state import TrainingReport

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
        on_best=lambda epoch, _: kept.append(epoch),
    )
    assert isinstance(phase.batch_size, int)
    split = PreparedSplit(folder / "train.arrow", classes)
    loader = TrainingLoader(split, batch_size=phase.batch_size, num_workers=0, seed=0)
    return model, train(model, loader, phase, PARAMS, Accelerator(cpu=True), hooks), kept


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


def test_only_matrices_are_decayed_and_every_learning_parameter_is_there_once() -> None:
    model = create_backbone("swin_thin", image_size_px=96)
    frozen = next(model.parameters())
    frozen.requires_grad_(False)
    optimizer = make_optimizer(model, 1e-3, 0.05)
    decay_of = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        if parameter is frozen:
            assert id(parameter) not in decay_of
            continue
        plain = "bias" in name or "norm" in name
        assert decay_of[id(parameter)] == (0.0 if plain else 0.05), name


@pytest.mark.parametrize("kind", ["single_task", "multi_task", "hybrid"])
def test_the_groups_of_every_model_are_decayed_and_plain_parameters_in_the_order_of_their_names(kind: str) -> None:
    """Trained weights depend on them; the rule is written out here, beside timm's."""
    tasks = ("type",) if kind == "single_task" else TASKS
    classes = ClassLists(tuple("abc"), tuple("de"))
    if kind == "hybrid":
        model = hybrid_architecture("convnext_thin", "swin_thin", "attention", 0.1, 0.1, 96).build(classes)
    else:
        model = baseline_architecture("convnext_thin", tasks, 0.1, 0.1, 96).build(classes)
    model.train_only(set(model.parts()) - {"cnn"} if kind == "hybrid" else model.parts())
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    expected: dict[bool, list[str]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and not name.endswith("relative_position_bias_table")
            expected[decays].append(name)
    groups = make_optimizer(model, 1e-3, 0.05).param_groups
    assert [group["weight_decay"] for group in groups] == [0.05, 0.0]
    assert [[names[id(parameter)] for parameter in group["params"]] for group in groups] == [
        expected[True],
        expected[False],
    ]


def test_the_rate_rises_linearly_then_falls_to_zero_as_a_cosine() -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=2.0)
    schedule = make_schedule(optimizer, total_steps=110, warmup_fraction=10 / 110)
    rates = []
    for _ in range(111):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[:10] == pytest.approx([2.0 * (step + 1) / 11 for step in range(10)])
    assert max(rates) == rates[10] == pytest.approx(2.0)
    assert rates[60] == pytest.approx(1.0)
    assert rates[110] == pytest.approx(0.0)
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates[10:]))
