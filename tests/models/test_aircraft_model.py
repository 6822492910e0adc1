"""The contract that every model obeys, over every architecture."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves as leaves

from aerofuse.checkpointing.choosing import attach
from aerofuse.data.labels import TASKS, ClassLists
from aerofuse.memory.step import count_training_step
from aerofuse.models.aircraft_model import AircraftModel
from aerofuse.models.architecture import Architecture, hybrid_architecture
from aerofuse.models.fusion import FUSIONS
from tests.models.architectures import baseline_architecture

CLASSES = ClassLists(tuple("abcdefg"), tuple("uvw"))
ARCHITECTURES: dict[str, Architecture] = {
    "single_task": baseline_architecture("convnext_thin", ("type",), 0.5, 0.3, 96),
    "multi_task": baseline_architecture("convnext_thin", TASKS, 0.5, 0.3, 96),
} | {f"hybrid_{method}": hybrid_architecture("convnext_thin", "swin_thin", method, 0.5, 0.3, 96) for method in FUSIONS}


@pytest.fixture(params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> Architecture:
    return ARCHITECTURES[request.param]


@pytest.fixture
def model(architecture: Architecture) -> AircraftModel:
    torch.manual_seed(0)
    return architecture.build(CLASSES)


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_outputs_have_the_shapes_of_their_tasks(
    model: AircraftModel, architecture: Architecture, images: Tensor
) -> None:
    outputs = model.eval()(images)
    assert tuple(outputs) == architecture.tasks
    shapes = {"type": (2, 7), "airline": (2, 3), "clarity": (2,), "block": (2,)}
    assert {task: tuple(output.shape) for task, output in outputs.items()} == {
        task: shapes[task] for task in architecture.tasks
    }
    for task in {"clarity", "block"} & set(outputs):
        assert ((outputs[task] >= 0) & (outputs[task] <= 1)).all()


def test_heads_read_exactly_the_features(model: AircraftModel, images: Tensor) -> None:
    model.eval()
    heads = model.parts()["heads"]
    for task, output in heads(model.get_features(images)).items():
        assert torch.equal(output, model(images)[task])


@pytest.mark.parametrize("sees_mirrored", [False, True])
def test_outputs_and_features_are_of_the_same_views(model: AircraftModel, images: Tensor, sees_mirrored: bool) -> None:
    model.eval().sees_mirrored = sees_mirrored
    outputs, features = model.outputs_and_features(images)
    views = (images, images.flip(-1)) if sees_mirrored else (images,)
    # Kernels round a batch of both views in another way than two batches.
    torch.testing.assert_close(features, torch.stack([model.get_features(view) for view in views]).mean(0))
    assert features.shape[1] == model.num_features
    for task, output in model(images).items():
        assert torch.equal(output, outputs[task])


def test_parts_hold_every_parameter_once(model: AircraftModel) -> None:
    of_parts = [id(parameter) for part in model.parts().values() for parameter in part.parameters()]
    assert sorted(of_parts) == sorted(id(parameter) for parameter in model.parameters())


def _changed_parts(model: AircraftModel, images: Tensor) -> set[str]:
    """The parts whose state a step of training changes."""
    model.zero_grad(set_to_none=True)
    before = {name: copy.deepcopy(part.state_dict()) for name, part in model.parts().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = torch.stack([output.float().square().mean() for output in model.train()(images).values()]).sum()
    loss.backward()
    optimizer.step()
    return {
        name
        for name, part in model.parts().items()
        if any(not torch.equal(before[name][key], value) for key, value in part.state_dict().items())
    }


def test_only_the_chosen_parts_change(model: AircraftModel, images: Tensor) -> None:
    # BatchNorm has state that changes without gradients: it must not in a frozen part.
    backbone = nn.Sequential(nn.BatchNorm2d(3), model.parts()["cnn"])
    backbone.num_features = model.parts()["cnn"].num_features
    model.cnn = backbone
    for chosen in ({"heads"}, set(model.parts()), {"cnn", "heads"}):
        model.train_only(chosen)
        expected = set(chosen)
        if not any(True for _ in model.parts().get("fusion", nn.Identity()).parameters()):
            expected -= {"fusion"}
        assert _changed_parts(model, images) == expected


def test_frozen_parts_give_the_same_features_every_time(model: AircraftModel, images: Tensor) -> None:
    """Drop-path and dropout of a frozen part are off, whatever the mode of the whole."""
    model.train_only({"heads"}).train()
    assert torch.equal(model.get_features(images), model.get_features(images))
    model.train_only(model.parts().keys()).train()
    assert not torch.equal(model.get_features(images), model.get_features(images))


def test_frozen_parts_save_nothing_for_the_backward_pass(model: AircraftModel, images: Tensor) -> None:
    model.train_only({"heads"}).train()
    assert not any(one.requires_grad for one in leaves(model.run_part("cnn", images.float())))
    frozen = _saved_elements(model, images)
    model.train_only(model.parts().keys()).train()
    assert frozen < 0.05 * _saved_elements(model, images)


def _saved_elements(model: AircraftModel, images: Tensor) -> int:
    """How many numbers a forward pass saves for the backward pass."""
    saved: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(images)
    return sum(saved)


def test_unknown_part_is_refused(model: AircraftModel) -> None:
    with pytest.raises(ValueError, match="no part wings; this model has cnn"):
        model.train_only({"wings"})


def test_freezing_survives_pickle_and_deepcopy(model: AircraftModel) -> None:
    model.train_only({"heads"}).train()
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        learning = [[parameter.requires_grad for parameter in one.parameters()] for one in (model, other)]
        assert learning[0] == learning[1]
        assert not other.parts()["cnn"].training


def test_checkpointing_reaches_every_backbone(model: AircraftModel, images: Tensor) -> None:
    model.enable_gradient_checkpointing(segments=2).train()
    model(images)
    chains = attach(model).chains
    assert model.backbones()
    for name in model.backbones():
        assert any(unit.calls[0].startswith(f"{name}.") for chain in chains for unit in chain)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "trains"),
    [
        ("concat", ("cnn", "transformer", "fusion", "heads")),
        ("concat", ("transformer", "fusion", "heads")),
        ("bilinear", ("cnn", "transformer", "fusion", "heads")),
    ],
)
def test_one_budget_for_both_backbones(method: str, trains: tuple[str, ...], images: Tensor) -> None:
    torch.manual_seed(0)
    model = ARCHITECTURES[f"hybrid_{method}"].build(CLASSES).train_only(trains).train()

    def step() -> list[Tensor]:
        torch.manual_seed(1)
        model.zero_grad()
        sum(output.sum() for output in model(images).values()).backward()
        return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    count = partial(count_training_step, model, images.shape, optimizer="adamw", input_dtype=torch.uint8)
    expected, unchecked = step(), count()
    budget = unchecked.peak_bytes - unchecked.peak_activation_bytes // 4
    assert not unchecked.peak_bytes <= budget
    model.enable_gradient_checkpointing(budget=budget)
    assert all(torch.equal(one, other) for one, other in zip(expected, step(), strict=True))
    assert count().peak_bytes <= 1.02 * budget
    # A plan of its own for a larger batch, none for a smaller one.
    plans = attach(model).plans
    model(images[:1])
    assert attach(model).plans is plans
    model(images.repeat(2, 1, 1, 1))
    assert attach(model).plans != plans
    assert model.is_gradient_checkpointing_enabled()
    model.disable_gradient_checkpointing()
    assert not model.is_gradient_checkpointing_enabled()


def test_segments_and_budget_exclude_each_other(model: AircraftModel) -> None:
    with pytest.raises(ValueError, match="give one of them"):
        model.enable_gradient_checkpointing(2, budget=0.5)
    with pytest.raises(ValueError, match="a memory budget is a number of bytes"):
        model.enable_gradient_checkpointing(budget=7.5)


def test_the_mirrored_photo_is_seen_too_in_evaluation(images: Tensor) -> None:
    model = replace(ARCHITECTURES["hybrid_concat"], sees_mirrored=True).build(CLASSES)
    model.eval()
    with torch.no_grad():
        once, mirrored = model(images), model(images.flip(-1))
        model.sees_mirrored = False
        plain = model(images)
    for task, output in once.items():
        torch.testing.assert_close(output, mirrored[task])
        assert not torch.allclose(output, plain[task])
    model.sees_mirrored = True
    model.train()
    torch.manual_seed(0)
    trained = model(images)
    model.sees_mirrored = False
    torch.manual_seed(0)
    assert all(torch.equal(output, trained[task]) for task, output in model(images).items())
