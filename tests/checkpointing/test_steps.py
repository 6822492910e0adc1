from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest

from aerofuse.checkpointing.segments import plan_segments, split_evenly
from aerofuse.checkpointing.steps import ChainPlan, Offload, Recompute, SaveAll, SaveSome, from_json, to_json, units_of


def test_split_evenly_is_the_best_of_all_splits() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        sizes = generator.integers(0, 50, generator.integers(1, 9)).tolist()
        parts = int(generator.integers(1, len(sizes) + 1))

        def largest(starts: tuple[int, ...], sizes: list[int] = sizes) -> int:
            bounds = [*starts, len(sizes)]
            return max(sum(sizes[a:b]) for a, b in pairwise(bounds))

        starts = split_evenly(sizes, parts)
        assert len(starts) == parts
        assert starts[0] == 0
        assert sorted(set(starts)) == starts
        best = min(largest((0, *rest)) for rest in combinations(range(1, len(sizes)), parts - 1))
        assert largest(tuple(starts)) == best


def test_segments_follow_bytes_not_counts() -> None:
    plan = plan_segments([100, 1, 1, 1, 1, 96], 2)
    assert plan.steps == (Recompute((SaveAll(0),)), SaveAll(1), SaveAll(2), SaveAll(3), SaveAll(4), SaveAll(5))


def test_one_segment_saves_everything() -> None:
    assert plan_segments([5, 5], 1) == ChainPlan.save_all(2)


def test_plans_with_one_step_for_all() -> None:
    assert ChainPlan.save_all(2).steps == (SaveAll(0), SaveAll(1))
    assert ChainPlan.selective(2).steps == (SaveSome(0), SaveSome(1))
    assert ChainPlan.recompute_all(2).steps == (Recompute((SaveAll(0),)), Recompute((SaveAll(1),)))


def test_units_of_nested_steps() -> None:
    plan = ChainPlan((SaveAll(0), Recompute((SaveSome(1), Recompute((SaveAll(2), SaveAll(3))), SaveAll(4)))))
    assert list(units_of(plan.steps)) == [0, 1, 2, 3, 4]
    assert plan.num_units == 5


@pytest.mark.parametrize("steps", [(SaveAll(1),), (SaveAll(0), SaveAll(0)), (SaveAll(0), Recompute((SaveSome(2),)))])
def test_a_plan_names_every_unit_once(steps: tuple[SaveAll | Recompute, ...]) -> None:
    with pytest.raises(ValueError, match="names every unit once and in order"):
        ChainPlan(steps)


def test_a_range_offloads_nothing() -> None:
    with pytest.raises(ValueError, match="a range that is computed again offloads nothing"):
        Recompute((SaveAll(0), Offload(1)))


def test_steps_survive_json() -> None:
    steps = (
        SaveAll(0),
        SaveSome(1),
        Recompute((SaveSome(2, ("linear.0",)), Recompute((SaveSome(3, (), no_cache=True), SaveAll(4))))),
        Offload(5),
    )
    assert from_json(to_json(steps)) == steps
