"""Plans within a budget: right in what they promise, and without effect on any bit."""

from __future__ import annotations

import copy
import functools
import pickle
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from aerofuse.backbones.backbone import create_backbone
from aerofuse.backbones.families import FAMILIES
from aerofuse.checkpointing.chain import Chain
from aerofuse.checkpointing.plan import CheckpointingPlan
from aerofuse.checkpointing.policy import ReadyPlan, Scope
from aerofuse.checkpointing.selective import list_calls
from aerofuse.checkpointing.steps import ChainPlan, Recompute, SaveAll, SaveSome, Step
from aerofuse.memory.step import count_training_step
from aerofuse.planning.clocks import Estimated
from aerofuse.planning.planner import Planner, plan_checkpointing
from tests.backbones.conftest import SMALLEST, shrunken_backbone, small_batch
from tests.backbones.test_exactness import two_steps

# Nothing is timed in tests.
ESTIMATED = Estimated(flops_per_second=5e10, bytes_per_second=1e10)
# What the planner promises is counted for these always, for all families by `make test-all`.
IN_SHORT = ("resnet", "vit", "swin3d")


@functools.cache
def tiny_planner(batch: int = 2) -> Planner:
    return Planner(shrunken_backbone("convnext"), (batch, 3, 64, 64), stopwatch=ESTIMATED)


def any_plan(chain: Chain, images: Tensor, rng: random.Random) -> ChainPlan:
    """Any results of any unit saved, in ranges of any length, some of them in others."""

    def steps(first: int, end: int) -> Iterator[Step]:
        while first < end:
            if rng.random() < 0.3:
                stop = rng.randint(first + 1, end)
                yield Recompute(tuple(steps(first, stop)))
                first = stop
            else:
                saved = tuple(name for name in names[first] if rng.random() < 0.4)
                if rng.random() < 0.3:
                    yield SaveAll(first)
                    first += 1
                    continue
                count = rng.randint(1, min(3, end - first))
                yield SaveSome(first, saved, no_cache=rng.random() < 0.5, count=count)
                first += count

    names: list[list[str]] = []
    for unit in chain:
        names.append([call.name for call in list_calls(unit.run, images)])
        images = unit.run(images).detach().requires_grad_()
    return ChainPlan(tuple(steps(0, len(chain))))


def test_no_plan_changes_a_bit(family: str) -> None:
    backbone, images = shrunken_backbone(family), small_batch(SMALLEST[family])
    plans = [any_plan(shrunken_backbone(family).chain(), images, random.Random(seed)) for seed in range(3)]
    expected = {precision: two_steps(backbone, images, precision == "bf16") for precision in ("float32", "bf16")}
    for plan, precision in zip(plans, ("float32", "bf16", "float32"), strict=True):
        backbone.checkpointing = ReadyPlan(plan, Scope(tuple(images.shape), precision))
        found = two_steps(backbone, images, precision == "bf16")
        pairs = zip(expected[precision], found, strict=True)
        assert [number for number, (one, other) in enumerate(pairs) if one != other] == [], (plan, precision)
        backbone.disable_gradient_checkpointing()


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=() if name in IN_SHORT else pytest.mark.large) for name in FAMILIES]
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
    assert all(unit in table for unit in plan.units[""])
    curve = plan.curve
    assert curve[-1].time_ratio == 1.0
    assert [point.time_ratio for point in curve] == sorted((point.time_ratio for point in curve), reverse=True)


def test_a_lowered_budget_is_planned_for_anew() -> None:
    backbone, shape = shrunken_backbone("convnext"), (2, 3, 64, 64)
    planner = tiny_planner()
    without = planner.baseline.activation_bytes
    # Each pair reads alike when it is written for a person.
    for higher, lower in ((0.504, 0.496), (planner.least().peak_bytes + 40_000, planner.least().peak_bytes + 39_000)):
        backbone.enable_gradient_checkpointing(budget=higher)
        backbone(torch.zeros(shape))
        backbone.enable_gradient_checkpointing(budget=lower)
        counted = count_training_step(backbone, shape, optimizer=None)
        assert (counted.peak_activation_bytes <= lower * without) if lower < 1 else (counted.peak_bytes <= lower)


def test_a_thawed_backbone_is_planned_for_anew() -> None:
    backbone, shape = shrunken_backbone("convnext"), (2, 3, 64, 64)
    for parameter in list(backbone.parameters())[:-10]:
        parameter.requires_grad_(False)
    budget = (tiny_planner().least().peak_bytes + tiny_planner().baseline.peak_bytes) // 2
    backbone.enable_gradient_checkpointing(budget=budget)
    backbone(torch.zeros(shape)).sum().backward()  # all fits without checkpointing
    backbone.requires_grad_(True).zero_grad()
    backbone(torch.zeros(shape))
    assert count_training_step(backbone, shape, optimizer=None).peak_bytes <= budget


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
        ValueError, match=r"another structure: of the backbone, stages\.0\.blocks\.0 is blocks\.0\.attention here"
    ):
        plan.apply(create_backbone("vit_tiny_patch16_224", image_size_px=64))
    with pytest.raises(ValueError, match=r"the plan is for the parts \(the backbone itself\), this model has none"):
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


def test_a_model_without_a_backbone_cannot_be_planned() -> None:
    with pytest.raises(ValueError, match="no part of this model that learns is a backbone"):
        plan_checkpointing(torch.nn.Linear(2, 2), (1, 2), 0.5)


@pytest.mark.parametrize("precision", ["float32", pytest.param("bf16", marks=pytest.mark.large)])
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
