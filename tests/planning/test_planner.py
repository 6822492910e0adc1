"""The least plan, with a bound on time and without one."""

from __future__ import annotations

import math

import pytest

from aerofuse.checkpointing.budget import format_bytes
from aerofuse.planning.planner import MOST_TIME_RATIO, Planner
from tests.backbones.conftest import shrunken_backbone
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
