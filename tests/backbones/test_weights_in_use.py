"""The second run of a range has the parameters and buffers of the first, or refuses: a backbone in training loops."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrizations import spectral_norm

from aerofuse.backbones.backbone import Backbone
from aerofuse.checkpointing.verification import verify_checkpointing
from aerofuse.planning.planner import plan_checkpointing
from tests.backbones.conftest import SMALLEST, shrunken_backbone, small_batch

SETTINGS: list[Mapping[str, Any]] = [{"policy": "recompute_all"}, {"segments": 3}, {"policy": "selective"}]


def gradients(backbone: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Those of one step, and the buffers and the random state after it."""
    torch.manual_seed(2)
    backbone.zero_grad()
    backbone(images).square().mean().backward()
    found = {name: parameter.grad for name, parameter in backbone.named_parameters() if parameter.grad is not None}
    return {**found, **dict(backbone.named_buffers()), "random": torch.get_rng_state()}


def assert_same_bits(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_other_weights_by_functional_call(family: str, setting: Mapping[str, Any]) -> None:
    _assert_that_other_weights_give_their_gradients(family, setting)


@pytest.mark.parametrize("name", ["resnet", "convnext"])
def test_other_weights_follow_a_budget_and_a_plan(name: str) -> None:
    """The weights of a functional call are no parameters, so a step with them cannot be counted."""
    backbone, images = shrunken_backbone(name), small_batch(SMALLEST[name])
    backbone.enable_gradient_checkpointing(budget=0.8)
    weights = {key: 1.0 * parameter for key, parameter in backbone.named_parameters()}
    functional_call(backbone, weights, (images,)).sum().backward()
    plan = plan_checkpointing(backbone, images.shape, 0.8)
    _assert_that_other_weights_give_their_gradients(name, {"policy": plan})


def _assert_that_other_weights_give_their_gradients(family: str, setting: Mapping[str, Any]) -> None:
    backbone, images = shrunken_backbone(family), small_batch(SMALLEST[family])
    fast = {name: 1.1 * parameter.detach() for name, parameter in backbone.named_parameters()}

    def found() -> list[Tensor]:
        torch.manual_seed(2)
        weights = {name: tensor.clone().requires_grad_() for name, tensor in fast.items()}
        output = functional_call(backbone, {name: 1.0 * weight for name, weight in weights.items()}, (images,))
        return list(torch.autograd.grad(output.square().mean(), list(weights.values()), allow_unused=True))

    expected = found()
    backbone.enable_gradient_checkpointing(**setting)
    assert [one is other is None or torch.equal(one, other) for one, other in zip(expected, found(), strict=True)] == [
        True
    ] * len(fast)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize(
    "name",
    ["model.layer1.0.conv1.weight", "model.layer1.0.bn1.weight", "model.layer1.0.bn1.bias", "model.conv1.weight"],
)
def test_a_weight_that_changes_before_the_backward_pass_is_named(name: str, setting: Mapping[str, Any]) -> None:
    backbone, images = shrunken_backbone("resnet"), small_batch(SMALLEST["resnet"])
    backbone.enable_gradient_checkpointing(**setting)
    loss = backbone(images).square().mean()
    with torch.no_grad():
        backbone.get_parameter(name).mul_(2)
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_the_message_says_which_weight_it_is() -> None:
    backbone = shrunken_backbone("vit").enable_gradient_checkpointing()
    for name, said in (
        ("model.blocks.1.mlp.fc1.weight", r"^mlp\.fc1\.weight \[192, 48\] was changed .*blocks\.1:mlp again"),
        ("model.norm.weight", r"^weight \[48\] was changed .*model\.norm.* again"),
    ):
        loss = backbone(small_batch(SMALLEST["vit"])).square().mean()
        with torch.no_grad():
            backbone.get_parameter(name).mul_(2)
        with pytest.raises(RuntimeError, match=said):
            loss.backward()


def test_a_weight_may_change_once_its_gradient_is_there(family: str) -> None:
    """An optimiser's step in the backward pass, parameter by parameter."""
    images = small_batch(SMALLEST[family])

    def step(setting: Mapping[str, Any] | None) -> dict[str, Tensor]:
        backbone = shrunken_backbone(family)
        if setting:
            backbone.enable_gradient_checkpointing(**setting)

        def update(parameter: Tensor) -> None:
            assert parameter.grad is not None
            parameter.data.sub_(parameter.grad, alpha=1e-3)
            parameter.detach().add_(0.0)

        for parameter in backbone.parameters():
            parameter.register_post_accumulate_grad_hook(update)
        gradients(backbone, images)
        return dict(backbone.state_dict())

    expected = step(None)
    for setting in SETTINGS[:2]:
        assert_same_bits(expected, step(setting))


class Centring(nn.Module):
    """Subtracts a moving average, from a buffer of its own, kept in one of several ways."""

    center: Tensor

    def __init__(self, keep: str) -> None:
        super().__init__()
        self.keep = keep
        self.register_buffer("center", torch.zeros(()))
        self.generator = torch.Generator().manual_seed(3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            mean = x.mean() + torch.rand((), generator=self.generator)
            if self.keep == "in place":
                self.center.lerp_(mean, 0.5)
            elif self.keep == "view":
                self.center.view(1)[0] = mean
            elif self.keep == "out":
                torch.lerp(self.center, mean, 0.5, out=self.center)
            else:
                self.center = self.center * 0.5 + mean
        return torch.tanh(x - self.center)


def with_state(kind: str) -> Backbone:
    backbone = shrunken_backbone("vit")
    if kind == "spectral norm":
        for module in list(backbone.modules()):
            if isinstance(module, nn.Linear):
                spectral_norm(module)
    elif kind == "fake quantisation":
        from torch.ao.quantization import FakeQuantize

        for block in backbone.model.blocks:  # type: ignore[union-attr]
            block.mlp.drop1 = FakeQuantize()
    else:
        for block in backbone.model.blocks:  # type: ignore[union-attr]
            block.mlp.drop1, block.attn.proj_drop = Centring(kind), Centring(kind)
    return backbone


@pytest.mark.parametrize("kind", ["spectral norm", "fake quantisation", "in place", "view", "out", "assigned"])
def test_state_that_a_forward_pass_advances(kind: str) -> None:
    images = small_batch(SMALLEST["vit"])
    original = with_state(kind)

    def two_steps(setting: Mapping[str, Any] | None, passes: Callable[[Backbone, Tensor], Tensor]) -> dict[str, Tensor]:
        backbone = copy.deepcopy(original)
        for module in backbone.modules():
            if isinstance(module, Centring):
                module.generator = torch.Generator().manual_seed(4)  # copies share one
        if setting:
            backbone.enable_gradient_checkpointing(**setting)
        gradients(backbone, images)
        torch.manual_seed(2)
        passes(backbone, images).backward()
        return gradients(backbone, images)

    def once(backbone: Backbone, images: Tensor) -> Tensor:
        loss: Tensor = backbone(images).square().mean()
        return loss

    def twice(backbone: Backbone, images: Tensor) -> Tensor:
        return once(backbone, images) + once(backbone, images.flip(0))

    for passes in (once, twice):
        expected = two_steps(None, passes)
        for setting in (*SETTINGS, {"segments": 5}):
            if "segments" in setting and kind == "fake quantisation":
                continue  # it asks for values, so that its bytes are not known before it runs
            assert_same_bits(expected, two_steps(setting, passes))


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("name", ["resnet", "vit", "swin"])
def test_two_passes_under_one_autocast(name: str, setting: Mapping[str, Any]) -> None:
    """They share autocast's copies of weights, whose gradients are summed in bf16."""
    images = small_batch(SMALLEST[name])

    def found(backbone: Backbone) -> dict[str, Tensor]:
        torch.manual_seed(2)
        with torch.autocast("cpu", torch.bfloat16):
            loss = backbone(images).float().square().mean() + backbone(images.flip(0)).float().square().mean()
        loss.backward()
        return {name: one.grad for name, one in backbone.named_parameters() if one.grad is not None}

    assert_same_bits(
        found(shrunken_backbone(name)), found(shrunken_backbone(name).enable_gradient_checkpointing(**setting))
    )


def test_verification_names_what_differs() -> None:
    class Counting(nn.Module):
        runs = 0

        def forward(self, x: Tensor) -> Tensor:
            self.runs += 1
            return torch.tanh(x * self.runs)

    backbone, images = shrunken_backbone("vit").enable_gradient_checkpointing(), small_batch(SMALLEST["vit"])
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    assert verify_checkpointing(backbone, images) == []
    assert_same_bits(before, backbone.state_dict())
    assert all(parameter.grad is None for parameter in backbone.parameters())
    backbone.model.blocks[1].mlp.drop1 = Counting()  # type: ignore[union-attr, index]
    assert "gradient of model.blocks.1.mlp.fc2.weight" in verify_checkpointing(backbone, images)
