"""The dynamic program against trying every plan, on chains short enough for that."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise

import pytest

from aerofuse.checkpointing.steps import ChainPlan, Offload, Recompute, SaveAll, SaveSome, Step, units_of
from aerofuse.planning.clocks import Transfer
from aerofuse.planning.profiling import ChainProfile, UnitPolicy, UnitProfile
from aerofuse.planning.simulation import simulate
from aerofuse.planning.solver import Solution


def random_profile(rng: random.Random, length: int, starts: tuple[int, ...] = (0,)) -> ChainProfile:
    """Units of a few bytes with two or three policies each, as uneven as real ones."""

    def policy(save: tuple[str, ...] | None, saved_bytes: int, replay_seconds: float) -> UnitPolicy:
        alive = max(saved_bytes, 0)  # below 0 where the unit lets its input go
        backward_bytes = alive + rng.randint(1, 6)
        return UnitPolicy(
            save, saved_bytes, alive + rng.randint(1, 4), backward_bytes, backward_bytes + 1, replay_seconds
        )

    def unit(name: str) -> UnitProfile:
        forward = rng.randint(1, 9)
        saved_bytes = rng.randint(3, 9)
        policies = [policy(None, saved_bytes, 0.0), policy(("a",), rng.randint(1, saved_bytes), forward / 4)]
        if rng.random() < 0.5:
            policies.append(policy((), rng.randint(-5, 1), forward / 2))
        if rng.random() < 0.7:
            policies[1] = replace(policies[1], link_seconds=rng.randint(0, 2) / 4, link_bytes=rng.randint(0, 1))
        return UnitProfile(
            name,
            rng.randint(1, 4),
            rng.randint(1, 4),
            1,
            0,
            forward,
            2 * forward,
            forward,
            forward + 1,
            0.25,
            tuple(policies),
        )

    units: list[UnitProfile] = []
    for number in range(length):
        again = units and rng.random() < 0.5
        units.append(replace(units[-1], name=str(number)) if again else unit(str(number)))
    return ChainProfile(tuple(units), starts)


def every_plan(profile: ChainProfile, s: int, t: int, *, whole: bool = True) -> Iterator[tuple[Step, ...]]:
    """All policies to write down the units s to t, `whole` also as one range."""
    if s > t:
        yield ()
        return
    for policy in profile.units[s].policies:
        for end in range(s + 1, t + 2):
            linked = profile.units[s + 1 : end]
            crosses = any(s < start < end for start in profile.starts)
            if linked and (policy.link_seconds is None or crosses or not all(map(profile.units[s].is_like, linked))):
                break
            for rest in every_plan(profile, end, t):
                yield (policy.step(s, end - s), *rest)
    for j in range(s + 1, t + 2 if whole else t + 1):
        if any(s < start < j for start in profile.starts):
            continue
        for inner in every_plan(profile, s, j - 1, whole=False):
            for rest in every_plan(profile, j, t):
                yield (Recompute(inner), *rest)


@pytest.mark.parametrize("seed", [*range(6), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(6, 12))])
@pytest.mark.parametrize("count_gradients", [False, True])
def test_no_plan_beats_the_solution(seed: int, count_gradients: bool) -> None:
    rng = random.Random(seed)
    length = rng.randint(1, 4)
    profile = random_profile(rng, length)
    costs = [simulate(profile, ChainPlan(steps)) for steps in every_plan(profile, 0, length - 1)]
    peaks = [cost.total_bytes if count_gradients else cost.activation_bytes for cost in costs]
    solution = Solution(profile, count_gradients=count_gradients, levels=max(peaks))
    assert solution.peak_bytes(solution.frontier[0]) == min(peaks)
    for budget in range(max(peaks) + 1):
        fitting = [cost.replay_seconds for cost, peak in zip(costs, peaks, strict=True) if peak <= budget]
        point = next((one for one in reversed(solution.frontier) if solution.peak_bytes(one) <= budget), None)
        if not fitting:
            assert point is None
        else:
            assert point is not None
            assert point.cost.replay_seconds == pytest.approx(min(fitting))
            assert simulate(profile, point.plan) == point.cost


@pytest.mark.parametrize("seed", [*range(6), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(6, 12))])
def test_no_range_crosses_from_one_chain_into_the_next(seed: int) -> None:
    profile = random_profile(random.Random(seed), 4, starts=(0, 2))
    costs = [simulate(profile, ChainPlan(steps)) for steps in every_plan(profile, 0, 3)]
    solution = Solution(profile, levels=max(cost.activation_bytes for cost in costs))
    assert solution.peak_bytes(solution.frontier[0]) == min(cost.activation_bytes for cost in costs)
    for point in solution.frontier:
        for step in point.plan.steps:
            units = list(units_of([step]))
            assert units[-1] < 2 or units[0] >= 2


def test_the_frontier_falls_from_the_least_memory_to_no_checkpointing() -> None:
    profile = random_profile(random.Random(5), 12)
    solution = Solution(profile)
    assert solution.frontier[-1].cost == solution.baseline
    assert solution.baseline.replay_seconds == 0
    for one, other in pairwise(solution.frontier):
        assert one.cost.activation_bytes < other.cost.activation_bytes
        assert one.cost.replay_seconds > other.cost.replay_seconds


@pytest.mark.parametrize("more", [lambda solved: 0, lambda solved: 90 - solved // 2, lambda solved: solved // 4])
def test_a_plan_is_found_by_counting_few(more: Callable[[int], int]) -> None:
    """`more` is what a whole step takes besides what was solved."""
    profile = random_profile(random.Random(5), 40)
    solution = Solution(profile)
    tried: list[ChainPlan] = []

    def count(plan: ChainPlan) -> int:
        tried.append(plan)
        solved = simulate(profile, plan).activation_bytes
        return solved + more(solved)

    peaks = [count(point.plan) for point in solution.frontier]
    for budget in (*peaks[:: len(peaks) // 20], max(peaks), max(peaks) + 1, min(peaks) - 1):
        tried.clear()
        point = solution.cheapest_counted(budget, count)
        fitting = [one for one, peak in zip(solution.frontier, peaks, strict=True) if peak <= budget]
        assert len(tried) <= 7
        if not fitting:
            assert point is None
        else:
            assert point is not None
            assert count(point.plan) <= budget
            assert point in fitting[-2:]


def test_a_plan_is_simulated_by_hand() -> None:
    save = UnitPolicy(
        None, saved_bytes=10, forward_bytes=15, backward_bytes=20, backward_total_bytes=23, replay_seconds=0.0
    )
    thin = UnitPolicy(
        ("a",), saved_bytes=2, forward_bytes=12, backward_bytes=18, backward_total_bytes=21, replay_seconds=0.5
    )
    thin = replace(thin, fixed_seconds=0.125)
    unit = UnitProfile("u", 4, 8, 3, 0, 1.0, 2.0, 0.75, 1.0, 0.25, (save, thin))
    profile = ChainProfile((unit, unit, unit), (0,))
    # All kept: the third unit's backward on top of what two units and their outputs hold.
    assert simulate(profile, ChainPlan((SaveAll(0), SaveAll(1), SaveAll(2)))).activation_bytes == 2 * (10 + 4) + 20
    cost = simulate(profile, ChainPlan((Recompute((SaveAll(0), SaveAll(1))), SaveSome(2, ("a",)))))
    # The second unit's backward when the range has run again: the first one held, with its output.
    assert cost.activation_bytes == (10 + 4) + 20
    # By then the third unit's parameters have their gradients; the second one's are in its own peak.
    assert cost.total_bytes == (10 + 4) + 23 + 3
    assert cost.replay_seconds == 0.5 + 1.0 + 0.75
    assert cost.fixed_seconds == 0.125 + 0.25 + 0.25
    # Units that update running statistics hold copies of them when they run again.
    counting = replace(unit, statistics_bytes=7)
    profile = ChainProfile((counting, counting, unit), (0,))
    cost = simulate(profile, ChainPlan((Recompute((SaveAll(0), SaveAll(1))), SaveSome(2, ("a",)))))
    assert cost.activation_bytes == (10 + 4 + 7) + (20 + 7)


def with_offload(profile: ChainProfile, rng: random.Random) -> ChainProfile:
    units = [
        replace(unit, offloaded=replace(unit.policies[0], saved_bytes=rng.randint(-3, 0), offloads=True))
        for unit in profile.units
    ]
    transfer = Transfer(rng.random() / 9, rng.random() / 9, overlaps=rng.random() < 0.5)
    return replace(profile, units=tuple(units)).with_transfer(transfer)


@pytest.mark.parametrize("seed", range(8))
def test_to_offload_makes_no_plan_worse_and_is_for_no_range(seed: int) -> None:
    rng = random.Random(seed)
    plain = random_profile(rng, 8, starts=(0, 5))
    profile = with_offload(plain, rng)
    frontier, without = Solution(profile).frontier, Solution(plain).frontier
    for point in without:
        fitting = [one for one in frontier if one.cost.activation_bytes <= point.cost.activation_bytes]
        assert fitting[-1].cost.replay_seconds <= point.cost.replay_seconds
    for point in frontier:
        assert simulate(profile, point.plan) == point.cost
    assert any(isinstance(step, Offload) for point in frontier for step in point.plan.steps)


def test_what_is_offloaded_is_simulated_by_hand() -> None:
    save = UnitPolicy(
        None, saved_bytes=10, forward_bytes=15, backward_bytes=20, backward_total_bytes=23, replay_seconds=0.0
    )
    # Its input leaves the device, too.
    unit = UnitProfile(
        "u", 4, 8, 3, 0, 1.0, 2.0, 0.75, 1.0, 0.25, (save,), replace(save, saved_bytes=-4, offloads=True)
    )
    profile = ChainProfile((unit, unit, unit), (0,)).with_transfer(Transfer(0.1, 0.1, overlaps=True))
    cost = simulate(profile, ChainPlan((Offload(0), Offload(1), SaveAll(2))))
    # One unit's 14 bytes are there while the unit after it runs, forward and backward.
    assert cost.activation_bytes == 14 + 20
    # By then the parameters of one unit after it have their gradients.
    assert cost.total_bytes == 14 + 23 + 3
    # Of the 1.4 s that the bytes take each way, the second is hidden, and so is all of the way back.
    assert cost.replay_seconds == pytest.approx(2 * 0.4)
    plain = ChainProfile((unit, unit), (0,)).with_transfer(Transfer(0.1, 0.2, overlaps=False))
    assert simulate(plain, ChainPlan((Offload(0), SaveAll(1)))).replay_seconds == pytest.approx(1.4 + 2.8)
    with pytest.raises(ValueError, match="unit u has no profile of Offload"):
        simulate(plain, ChainPlan((SaveAll(0), Offload(1))))  # its backward pass would follow at once


def test_a_plan_for_another_chain_has_no_cost() -> None:
    profile = random_profile(random.Random(0), 2)
    with pytest.raises(ValueError, match="a plan for 3 units has no cost on a chain of 2"):
        simulate(profile, ChainPlan((SaveAll(0), SaveAll(1), SaveAll(2))))
    with pytest.raises(
        ValueError, match=r"unit 1 has no profile of SaveSome\(unit=1, save=\('conv2d.7',\), no_cache=False, count=1\)"
    ):
        simulate(profile, ChainPlan((SaveAll(0), SaveSome(1, ("conv2d.7",)))))
