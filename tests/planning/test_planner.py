"""The least plan, with a bound on time and without one."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from aerofuse.backbones.families import FAMILIES
from aerofuse.checkpointing import offload
from aerofuse.checkpointing.budget import format_bytes
from aerofuse.checkpointing.steps import Offload
from aerofuse.memory.report import MemoryReport
from aerofuse.memory.step import FakeTraining, count_training_step
from aerofuse.planning.planner import MOST_TIME_RATIO, Planner
from aerofuse.planning.seen_before import nothing_seen_before
from tests.backbones.conftest import SMALLEST, shrunken_backbone, small_batch
from tests.conftest import ESTIMATED


@pytest.mark.parametrize("counts_everything", [True, False])
def test_the_least_plan_is_one_within_a_bound_on_time(counts_everything: bool) -> None:
    planner = Planner(shrunken_backbone("convnext"), (2, 3, 64, 64), stopwatch=ESTIMATED)
    bounds = (1.0, 1.1, 1.2, MOST_TIME_RATIO, math.inf)
    found = [planner.least(counts_everything=counts_everything, most_time_ratio=bound) for bound in bounds]
    assert [least.time_ratio <= bound for least, bound in zip(found, bounds, strict=True)] == [True] * len(bounds)
    assert found[0] == planner.baseline
    assert planner.least(counts_everything=counts_everything) == found[3]
    peaks = [least.peak_bytes if counts_everything else least.activation_bytes for least in found]
    assert peaks[0] > peaks[1] > peaks[2] >= peaks[3] >= peaks[4]


def test_a_budget_below_the_least_within_a_bound_has_a_plan() -> None:
    planner = Planner(shrunken_backbone("convnext"), (2, 3, 64, 64), stopwatch=ESTIMATED)
    bounded, least = planner.least(most_time_ratio=1.1), planner.least(most_time_ratio=math.inf)
    assert planner.plan(least.peak_bytes).predicted.peak_bytes <= least.peak_bytes < bounded.peak_bytes
    with pytest.raises(ValueError, match=f"the least is {format_bytes(least.peak_bytes)}, "):
        planner.plan(least.peak_bytes - 1)


@pytest.mark.parametrize("rate", [1e12, 1e6])
def test_offload_is_chosen_where_bytes_go_fast_enough(rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offload, "LEAST_BYTES", 1)
    backbone = shrunken_backbone("convnext")
    stopwatch = replace(ESTIMATED, host_bytes_per_second=rate)
    with nothing_seen_before():
        planner = Planner(backbone, (2, 3, 64, 64), stopwatch=stopwatch, offload=True)
        plan = planner.plan(0.8)
        without = Planner(backbone, (2, 3, 64, 64), stopwatch=stopwatch).plan(0.8)
    offloads = any(isinstance(step, Offload) for chain in plan.plans for step in chain.steps)
    assert offloads == (rate == 1e12)
    assert plan.predicted.time_ratio <= without.predicted.time_ratio
    if offloads:
        assert plan.predicted.time_ratio < without.predicted.time_ratio
        assert planner.solved(plan).activation_bytes == pytest.approx(plan.predicted.activation_bytes, rel=0.01)
        assert "offload all" in str(plan)
    plan.apply(backbone)
    counted = count_training_step(backbone, (2, 3, 64, 64), optimizer=None)
    assert counted.peak_activation_bytes == pytest.approx(plan.predicted.activation_bytes, rel=0.01)
    assert plan.predicted.activation_bytes <= 0.8 * planner.baseline.activation_bytes


@pytest.mark.parametrize("counts_everything", [True, False])
def test_few_whole_steps_are_counted(counts_everything: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Units alone tell what a step of this network takes, and parameters are no part of what they tell."""
    counted: list[FakeTraining] = []
    count_passes = FakeTraining.count_passes

    def count(self: FakeTraining) -> MemoryReport:
        counted.append(self)
        return count_passes(self)

    monkeypatch.setattr(FakeTraining, "count_passes", count)
    planner = Planner(shrunken_backbone("convnext"), (8, 3, 64, 64), optimizer="adamw", stopwatch=ESTIMATED)
    least = planner.least(counts_everything=counts_everything)
    assert len(counted) == 2, "the baseline and the least plan"
    at_least = least.peak_bytes if counts_everything else least.activation_bytes
    lowest = [point.peak_bytes if counts_everything else point.activation_bytes for point in planner.curve()]
    assert at_least <= 1.02 * min(lowest)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("share", [1.0, 0.9])
def test_what_is_solved_with_gradients_is_what_is_counted(family: str, share: float) -> None:
    """A half of a block has no gradients of the other half."""
    planner = Planner(shrunken_backbone(family), small_batch(SMALLEST[family], 8).shape, stopwatch=ESTIMATED)
    plan = planner.plan(share)
    solved = planner.solved(plan)
    assert solved.activation_bytes == pytest.approx(plan.predicted.activation_bytes, rel=0.02)
    assert solved.total_bytes + planner.fixed_bytes == pytest.approx(plan.predicted.peak_bytes, rel=0.02)
