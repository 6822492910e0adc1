"""Plans within a budget: right in what they promise, and without effect on any bit."""

from __future__ import annotations

import copy
import functools
import json
import pickle
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aerofuse.backbones.backbone import Backbone, create_backbone
from aerofuse.backbones.families import FAMILIES
from aerofuse.checkpointing.choosing import attach, trace_chains
from aerofuse.checkpointing.find_units import TracedChain, names_of
from aerofuse.checkpointing.plan import CheckpointingPlan
from aerofuse.checkpointing.selective import list_calls
from aerofuse.checkpointing.steps import ChainPlan, Recompute, SaveAll, SaveSome, Step
from aerofuse.memory.counter import LiveBytes
from aerofuse.memory.step import count_training_step
from aerofuse.planning.bound_units import bind, input_of
from aerofuse.planning.estimates import Estimated
from aerofuse.planning.planner import Planner, plan_checkpointing
from tests.backbones.conftest import SMALLEST, shrunken_backbone, small_batch
from tests.backbones.test_exactness import two_steps

# Nothing is timed in tests.
ESTIMATED = Estimated(flops_per_second=5e10, bytes_per_second=1e10)
# What the planner promises is counted for these always, for all families by `make test-long`.
IN_SHORT = ("resnet", "vit", "swin3d")


@functools.cache
def tiny_planner(batch: int = 2) -> Planner:
    return Planner(shrunken_backbone("convnext"), (batch, 3, 64, 64), stopwatch=ESTIMATED)


class AnyPlans:
    """Any results of any unit saved, in ranges of any length, some of them in others."""

    def __init__(self, backbone: Backbone, images: Tensor, seed: int) -> None:
        twin = copy.deepcopy(backbone)
        traced = trace_chains(twin, (images,), {})
        self.policy = seed
        self._rng = random.Random(seed)
        self._chains = names_of(traced)
        self._plans = [ChainPlan(tuple(self._steps(chain, twin, 0, len(chain)))) for chain in traced]

    def choose(self, *_: object, **__: object) -> tuple[Any, list[ChainPlan]]:
        return self._chains, self._plans

    def _steps(self, chain: TracedChain, network: nn.Module, first: int, end: int) -> Iterator[Step]:
        while first < end:
            if self._rng.random() < 0.3:
                stop = self._rng.randint(first + 1, end)
                yield Recompute(tuple(self._steps(chain, network, first, stop)))
                first = stop
            elif self._rng.random() < 0.3:
                yield SaveAll(first)
                first += 1
            else:
                x = input_of(chain[first]).make().requires_grad_()
                calls = list_calls(bind(chain[first], network).run, x)
                saved = tuple(call.name for call in calls if self._rng.random() < 0.4)
                count = self._rng.randint(1, min(3, end - first))
                yield SaveSome(first, saved, no_cache=self._rng.random() < 0.5, count=count)
                first += count


def test_no_plan_changes_a_bit(family: str) -> None:
    backbone, images = shrunken_backbone(family), small_batch(SMALLEST[family])
    plans = [AnyPlans(backbone, images, seed) for seed in range(3)]
    expected = {precision: two_steps(backbone, images, precision == "bf16") for precision in ("float32", "bf16")}
    for plan, precision in zip(plans, ("float32", "bf16", "float32"), strict=True):
        attach(backbone).choose_by(plan)
        found = two_steps(backbone, images, precision == "bf16")
        pairs = zip(expected[precision], found, strict=True)
        assert [number for number, (one, other) in enumerate(pairs) if one != other] == [], (vars(plan), precision)
        backbone.disable_gradient_checkpointing()


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=() if name in IN_SHORT else pytest.mark.slow) for name in FAMILIES]
)
def test_a_plan_holds_what_it_says(family: str) -> None:
    backbone, images = shrunken_backbone(family), small_batch(SMALLEST[family])
    planner = Planner(backbone, images.shape, stopwatch=ESTIMATED)
    baseline = count_training_step(backbone, images.shape, optimizer=None).peak_activation_bytes
    least = planner.least(counts_everything=False).activation_bytes / baseline
    for share in (least, (1 + least) / 2):
        plan = planner.plan(share)
        plan.apply(backbone)
        counted = count_training_step(backbone, images.shape, optimizer=None).peak_activation_bytes
        assert counted == pytest.approx(plan.predicted.activation_bytes, rel=0.02)
        assert counted == pytest.approx(planner.solved(plan).activation_bytes, rel=0.05)
        assert counted <= 1.02 * share * baseline
        backbone.disable_gradient_checkpointing()


def test_a_budget_is_planned_for_when_a_batch_is_seen() -> None:
    backbone, images = shrunken_backbone("convnext"), torch.randn(4, 3, 64, 64)
    expected = two_steps(backbone, images, autocast=False)
    baseline = count_training_step(backbone, images.shape, optimizer=None).peak_activation_bytes
    backbone.enable_gradient_checkpointing(budget=0.5)
    before = torch.get_rng_state()
    backbone(images)
    backbone.load_state_dict(shrunken_backbone("convnext").state_dict())
    torch.set_rng_state(before)
    found = two_steps(backbone, images, autocast=False)
    assert found == expected
    assert count_training_step(backbone, images.shape, optimizer=None).peak_activation_bytes <= 0.51 * baseline
    twin = pickle.loads(pickle.dumps(copy.deepcopy(backbone)))
    assert twin.checkpointing == backbone.checkpointing


@pytest.mark.timed
def test_planning_draws_no_random_number() -> None:
    backbone, images = shrunken_backbone("convnext"), torch.randn(4, 3, 64, 64)
    backbone.enable_gradient_checkpointing(budget=0.6)
    torch.manual_seed(3)
    first = backbone(images)  # plans
    torch.manual_seed(3)
    assert torch.equal(backbone(images), first)


def test_a_plan_is_a_value(tmp_path: Path) -> None:
    plan = tiny_planner().plan(0.5)
    plan.save(tmp_path / "plan.json")
    assert CheckpointingPlan.load(tmp_path / "plan.json") == plan
    (tmp_path / "other.json").write_text('{"budget": 3}')
    with pytest.raises(ValueError, match=r"other\.json is no plan that CheckpointingPlan\.save wrote"):
        CheckpointingPlan.load(tmp_path / "other.json")
    table = str(plan)
    assert all(unit.name in table for chain in plan.chains for unit in chain)
    curve = plan.curve
    assert curve[-1].time_ratio == 1.0
    assert [point.time_ratio for point in curve] == sorted((point.time_ratio for point in curve), reverse=True)


def test_a_lowered_budget_is_planned_for_anew() -> None:
    backbone, shape = shrunken_backbone("convnext"), (2, 3, 64, 64)
    planner = tiny_planner()
    without = planner.baseline.activation_bytes
    # Each pair reads alike when it is written for a person.
    for higher, lower in ((0.504, 0.496), (planner.least().peak_bytes + 40_000, planner.least().peak_bytes + 39_000)):
        backbone.enable_gradient_checkpointing(budget=higher, optimizer=None)
        backbone(torch.zeros(shape))
        backbone.enable_gradient_checkpointing(budget=lower, optimizer=None)
        counted = count_training_step(backbone, shape, optimizer=None)
        assert (counted.peak_activation_bytes <= lower * without) if lower < 1 else (counted.peak_bytes <= lower)


def test_a_thawed_backbone_is_planned_for_anew() -> None:
    backbone, shape = shrunken_backbone("convnext"), (2, 3, 64, 64)
    for parameter in list(backbone.parameters())[:-10]:
        parameter.requires_grad_(False)
    budget = (tiny_planner().least().peak_bytes + tiny_planner().baseline.peak_bytes) // 2
    backbone.enable_gradient_checkpointing(budget=budget, optimizer=None)
    backbone(torch.zeros(shape)).sum().backward()  # all fits without checkpointing
    backbone.requires_grad_(True).zero_grad()
    backbone(torch.zeros(shape))
    assert count_training_step(backbone, shape, optimizer=None).peak_bytes <= budget


OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "by default": torch.optim.AdamW,
    "another": lambda parameters: torch.optim.SGD([{"params": part} for part in (parameters[:9], parameters[9:])]),
    "with momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, foreach=False),
    "as bytes": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, foreach=False),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("holds_gradients", [False, True])
def test_a_budget_in_bytes_has_room_for_the_optimizer(name: str, holds_gradients: bool) -> None:
    backbone, images = shrunken_backbone("convnext"), small_batch("convnext_atto", batch=4)
    optimizer = OPTIMIZERS[name](list(backbone.parameters()))
    given: dict[str, Any] = {"by default": {}, "as bytes": {"optimizer": 4.0}}.get(name, {"optimizer": optimizer})
    planner = Planner(backbone, images.shape, holds_gradients=holds_gradients, **{"optimizer": "adamw", **given})
    budget = (planner.least().peak_bytes + planner.baseline.peak_bytes) // 2
    backbone.enable_gradient_checkpointing(budget=budget, holds_gradients=holds_gradients, **given)

    def step() -> None:
        for _ in range(1 + holds_gradients):
            backbone(images).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    with LiveBytes(backbone, optimizer, [images]) as counted:
        step()
    assert 0.9 * budget < counted.report().peak_bytes <= budget


def test_an_optimizer_of_another_model_is_refused() -> None:
    backbone = shrunken_backbone("convnext")
    with pytest.raises(ValueError, match="the optimizer has no parameter of this model"):
        backbone.enable_gradient_checkpointing(
            budget=0.5, optimizer=torch.optim.SGD(torch.nn.Linear(2, 2).parameters())
        )
    with pytest.raises(ValueError, match=r"optimizer is 'adam'; it must be one of 'adamw', None, an optim"):
        backbone.enable_gradient_checkpointing(budget=0.5, optimizer="adam")
    assert not backbone.is_gradient_checkpointing_enabled()


def test_a_plan_costs_more_for_a_smaller_batch() -> None:
    planner = tiny_planner(batch=4)
    plan = planner.plan(0.5)
    assert planner.time_ratio(plan, 4) == plan.predicted.time_ratio
    half, quarter = planner.time_ratio(plan, 2), planner.time_ratio(plan, 1)
    # What Python takes stays, and what is computed is halved each time.
    assert quarter - half == pytest.approx(2 * (half - plan.predicted.time_ratio))
    assert half > plan.predicted.time_ratio


def test_budgets_that_are_too_small_and_too_large() -> None:
    planner = tiny_planner()
    with pytest.raises(ValueError, match=r"a budget of 1% is too little .* the least is 0\.\d+ of the peak without"):
        planner.plan(0.01)
    with pytest.raises(ValueError, match=r"a budget of 100 KiB is too little .* of it for parameters and the like; a "):
        planner.plan("100 KiB")
    plan = planner.plan("100 GiB")
    assert plan.saves_everything
    assert "nothing is checkpointed" in plan.summary()


def test_the_least_is_possible() -> None:
    planner = tiny_planner()
    plan = planner.plan(round(1.001 * planner.least().peak_bytes))
    assert plan.predicted.peak_bytes == pytest.approx(planner.least().peak_bytes, rel=0.02)


def test_a_plan_for_something_else_is_refused() -> None:
    plan = tiny_planner().plan(0.5)
    with pytest.raises(
        ValueError, match=r"the plan is for another network: this one has no module model\.stem; plan again"
    ):
        plan.apply(create_backbone("vit_tiny_patch16_224", image_size_px=64))
    with pytest.raises(ValueError, match=r"this one has no module model\.stem"):
        plan.apply(torch.nn.Linear(2, 2))
    backbone = shrunken_backbone("convnext")
    plan.apply(backbone)
    backbone(torch.zeros(1, 3, 64, 64))  # a smaller batch, as the last one of an epoch
    with pytest.raises(ValueError, match=r"for batches of up to 2, not 3"):
        backbone(torch.zeros(3, 3, 64, 64))
    with pytest.raises(ValueError, match=r"for inputs \[2, 3, 64, 64\], not \[2, 3, 96, 96\]"):
        backbone(torch.zeros(2, 3, 96, 96))
    with pytest.raises(ValueError, match="for float32, not bf16"), torch.autocast("cpu", torch.bfloat16):
        backbone(torch.zeros(2, 3, 64, 64))


def test_a_plan_of_a_smaller_network_is_refused(tmp_path: Path) -> None:
    import timm  # after our own modules, which pair torchvision with this torch

    small = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=0, depth=2, embed_dim=48, num_heads=2)
    large = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=0, depth=2, embed_dim=96, num_heads=2)
    one, other = (Backbone("vit_tiny_patch16_224", model) for model in (small, large))
    plan = plan_checkpointing(one, (2, 3, 64, 64), 0.9)
    plan.save(tmp_path / "plan.json")
    for refused in (plan, CheckpointingPlan.load(tmp_path / "plan.json")):
        with pytest.raises(ValueError, match="the plan is for a network of other shapes or types of parameters"):
            refused.apply(other)
        assert not other.is_gradient_checkpointing_enabled()
    content = json.loads((tmp_path / "plan.json").read_text())
    del content["format"]
    (tmp_path / "plan.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"plan\.json is a plan of file format 1, .* reads 3; plan again"):
        CheckpointingPlan.load(tmp_path / "plan.json")


def test_a_plan_is_refused_once_the_network_has_changed() -> None:
    backbone, images = shrunken_backbone("convnext"), torch.zeros(2, 3, 64, 64)
    frozen = list(backbone.parameters())[:-10]
    for parameter in frozen:
        parameter.requires_grad_(False)
    plan_checkpointing(backbone, images.shape, 1.0).apply(backbone)
    backbone(images)
    list(backbone.parameters())[-1].requires_grad_(False)
    backbone(images)  # less learns
    frozen[-1].requires_grad_(True)
    with pytest.raises(ValueError, match="a network of which less learns; plan again"):
        backbone(images)
    frozen[-1].requires_grad_(False)
    with pytest.raises(ValueError, match="other shapes or types of parameters; plan again"):
        backbone.double()(images.double())


def test_a_backbone_of_another_type_is_planned_for_anew() -> None:
    backbone, images = shrunken_backbone("convnext"), torch.zeros(2, 3, 64, 64)
    backbone.enable_gradient_checkpointing(budget=tiny_planner().baseline.peak_bytes, optimizer=None)
    backbone(images).sum().backward()  # all fits
    backbone.double().zero_grad()
    with pytest.raises(ValueError, match="is too little for inputs"):  # it takes twice as much
        backbone(images.double())


def adapted(network: nn.Module) -> None:
    """LoRA (arXiv 2106.09685): frozen linear layers with something small beside that learns."""

    class Adapted(nn.Module):
        def __init__(self, linear: nn.Linear) -> None:
            super().__init__()
            self.linear = linear
            self.down = nn.Linear(linear.in_features, 2, bias=False)
            self.up = nn.Linear(2, linear.out_features, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.linear(x) + self.up(self.down(x))
            return output

    network.requires_grad_(False)
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, Adapted(child))


def last_third(network: nn.Module) -> None:
    parameters = list(network.parameters())
    for parameter in parameters[: 2 * len(parameters) // 3]:
        parameter.requires_grad_(False)


@pytest.mark.parametrize("learn", [adapted, last_third])
@pytest.mark.parametrize("name", ["vit", pytest.param("swin", marks=pytest.mark.slow)])
def test_a_partly_frozen_backbone_is_planned_for(name: str, learn: Callable[[nn.Module], None]) -> None:
    backbone, images = shrunken_backbone(name), small_batch(SMALLEST[name])
    learn(backbone)
    expected = two_steps(backbone, images, autocast=False)
    planner = Planner(backbone, images.shape, optimizer="adamw")
    learning = sum(parameter.nbytes for parameter in backbone.parameters() if parameter.requires_grad)
    frozen = sum(parameter.nbytes for parameter in backbone.parameters()) - learning
    buffers = sum(buffer.nbytes for buffer in backbone.buffers())
    steps = 4 * len([parameter for parameter in backbone.parameters() if parameter.requires_grad])
    assert planner.fixed_bytes == pytest.approx(frozen + buffers + 3 * learning + images.nbytes + steps, rel=0.01)
    for budget in (planner.least().peak_bytes, planner.baseline.peak_bytes):
        planner.plan(budget).apply(backbone)
        assert count_training_step(backbone, images.shape).peak_bytes <= budget
        assert two_steps(backbone, images, autocast=False) == expected


def test_a_network_of_one_layer_has_one_unit() -> None:
    plan = plan_checkpointing(torch.nn.Linear(2, 2), (1, 2), 1.0)
    assert [[unit.calls for unit in chain] for chain in plan.chains] == [[("",)]]


@pytest.mark.parametrize("precision", ["float32", pytest.param("bf16", marks=pytest.mark.largest)])
def test_bytes_of_a_step_with_its_optimizer(precision: str) -> None:
    backbone = create_backbone("convnext_atto")
    shape = (8, 3, 128, 128)
    planner = Planner(backbone, shape, precision=precision, optimizer="adamw", stopwatch=ESTIMATED)  # type: ignore[arg-type]
    baseline = count_training_step(backbone, shape, precision=precision, fake=True)  # type: ignore[arg-type]
    least = planner.least().peak_bytes
    budget = round((least + baseline.peak_bytes) / 2)
    plan = planner.plan(budget)
    plan.apply(backbone)
    counted = count_training_step(backbone, shape, precision=precision)  # type: ignore[arg-type]
    assert counted.peak_bytes <= budget
    assert counted.peak_bytes == pytest.approx(plan.predicted.peak_bytes, rel=0.02 if precision == "float32" else 0.05)


@pytest.mark.parametrize("optimizer", [None, "adamw"])
def test_a_share_is_one_of_the_activations_whatever_the_optimizer(optimizer: str | None) -> None:
    """Of a small batch AdamW's temporaries are more than the activations, and no plan lowers them."""
    backbone = create_backbone("resnet18").train()
    planner = Planner(backbone, (4, 3, 64, 64), optimizer=optimizer, stopwatch=ESTIMATED)
    plan = planner.plan(0.7)
    assert plan.predicted.activation_bytes <= 0.7 * planner.baseline.activation_bytes
    plan.apply(backbone)
    counted = count_training_step(backbone, (4, 3, 64, 64), optimizer=None)
    assert counted.peak_activation_bytes == pytest.approx(plan.predicted.activation_bytes, rel=0.02)
