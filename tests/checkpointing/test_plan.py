from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest

from aerofuse.checkpointing.plan import Keep, Plan, Policy, Recompute, Thin, from_json, split_evenly, to_json, units_of


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
    plan = Plan.segmented([100, 1, 1, 1, 1, 96], 2)
    assert plan.steps == (Recompute((Keep(0),)), Keep(1), Keep(2), Keep(3), Keep(4), Keep(5))


def test_one_segment_keeps_everything() -> None:
    assert Plan.segmented([5, 5], 1) == Plan.uniform(Policy.KEEP_ALL, 2)


def test_uniform_plans() -> None:
    assert Plan.uniform(Policy.KEEP_ALL, 2).steps == (Keep(0), Keep(1))
    assert Plan.uniform(Policy.KEEP_DEAR, 2).steps == (Thin(0), Thin(1))
    assert Plan.uniform(Policy.RECOMPUTE_ALL, 2).steps == (Recompute((Keep(0),)), Recompute((Keep(1),)))


def test_units_of_nested_steps() -> None:
    plan = Plan((Keep(0), Recompute((Thin(1), Recompute((Keep(2), Keep(3))), Keep(4)))))
    assert list(units_of(plan.steps)) == [0, 1, 2, 3, 4]
    assert plan.num_units == 5


@pytest.mark.parametrize("steps", [(Keep(1),), (Keep(0), Keep(0)), (Keep(0), Recompute((Thin(2),)))])
def test_a_plan_names_every_unit_once(steps: tuple[Keep | Recompute, ...]) -> None:
    with pytest.raises(ValueError, match="names every unit once and in order"):
        Plan(steps)


def test_steps_survive_json() -> None:
    steps = (Keep(0), Thin(1), Recompute((Thin(2, ("linear.0",)), Recompute((Thin(3, (), sparing=True), Keep(4))))))
    assert from_json(to_json(steps)) == steps
