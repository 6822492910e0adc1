"""The dynamic program against trying every plan, on chains short enough for that."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise

import pytest

from aerofuse.checkpointing.steps import ChainPlan, Offload, Recompute, SaveAll, SaveSome, Step, units_of
from aerofuse.planning.clocks import Transfer, UnitSeconds
from aerofuse.planning.simulation import PlanCost, Simulator
from aerofuse.planning.solver import LEVELS, Solution
from aerofuse.planning.unit_bytes import UnitBytes
from aerofuse.planning.unit_costs import ChainProfile, UnitPolicy, UnitProfile

SECONDS = UnitSeconds(1.0, 2.0, rerun=0.75, whole_rerun=1.0, rerun_fixed=0.25, selective=0.125, selective_fixed=0.125)


def policy_of(
    save: tuple[str, ...] | None, saved: int, forward: int, backward: int, backward_total: int, replay_seconds: float
) -> UnitPolicy:
    counted = UnitBytes(
        saved, forward, backward, backward_total, gradients=0, output=4, output_is_saved=True, input_is_saved=True
    )
    return UnitPolicy(counted, save, replay_seconds)


def random_profile(rng: random.Random, length: int, starts: tuple[int, ...] = (0,)) -> ChainProfile:
    """Units of a few bytes with two or three policies each, as uneven as real ones."""

    def policy(save: tuple[str, ...] | None, saved_bytes: int, replay_seconds: float) -> UnitPolicy:
        alive = max(saved_bytes, 0)  # below 0 where the unit lets its input go
        backward_bytes = alive + rng.randint(1, 6)
        forward_bytes = alive + rng.randint(1, 4)
        return policy_of(save, saved_bytes, forward_bytes, backward_bytes, backward_bytes + 1, replay_seconds)

    def unit(name: str) -> UnitProfile:
        forward = rng.randint(1, 9)
        saved_bytes = rng.randint(3, 9)
        policies = [policy(None, saved_bytes, 0.0), policy(("a",), rng.randint(1, saved_bytes), forward / 4)]
        if rng.random() < 0.5:
            policies.append(policy((), rng.randint(-5, 1), forward / 2))
        if rng.random() < 0.7:
            policies[1] = replace(policies[1], link_seconds=rng.randint(0, 2) / 4, link_bytes=rng.randint(0, 1))
        seconds = UnitSeconds(
            forward, 2 * forward, forward, forward + 1, rerun_fixed=0.25, selective=0.125, selective_fixed=0.125
        )
        return UnitProfile(name, rng.randint(1, 4), rng.randint(1, 4), 1, seconds, tuple(policies))

    units: list[UnitProfile] = []
    for number in range(length):
        again = units and rng.random() < 0.5
        units.append(replace(units[-1], name=str(number)) if again else unit(str(number)))
    return ChainProfile(tuple(units), starts)


def simulate(profile: ChainProfile, plan: ChainPlan) -> PlanCost:
    return Simulator(profile).cost(plan)


def solve(profile: ChainProfile, *, count_gradients: bool = False, levels: int = LEVELS) -> Solution:
    """Where a whole step takes what its units take."""

    def count(plan: ChainPlan) -> int:
        cost = simulate(profile, plan)
        return cost.total_bytes if count_gradients else cost.activation_bytes

    return Solution(profile, count, count_gradients=count_gradients, levels=levels)


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
    solution = solve(profile, count_gradients=count_gradients, levels=max(peaks))
    assert solution.frontier[0].peak_bytes == min(peaks)
    for budget in range(max(peaks) + 1):
        fitting = [cost.replay_seconds for cost, peak in zip(costs, peaks, strict=True) if peak <= budget]
        point = next((one for one in reversed(solution.frontier) if one.peak_bytes <= budget), None)
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
    solution = solve(profile, levels=max(cost.activation_bytes for cost in costs))
    assert solution.frontier[0].peak_bytes == min(cost.activation_bytes for cost in costs)
    for point in solution.frontier:
        for step in point.plan.steps:
            units = list(units_of([step]))
            assert units[-1] < 2 or units[0] >= 2


def test_the_frontier_falls_from_the_least_memory_to_no_checkpointing() -> None:
    profile = random_profile(random.Random(5), 12)
    solution = solve(profile)
    assert solution.frontier[-1].cost == simulate(profile, ChainPlan.save_all(12))
    assert solution.frontier[-1].cost.replay_seconds == 0
    for one, other in pairwise(solution.frontier):
        assert one.cost.activation_bytes < other.cost.activation_bytes
        assert one.cost.replay_seconds > other.cost.replay_seconds


@pytest.mark.parametrize("more", [lambda solved: 0, lambda solved: 90 - solved // 2, lambda solved: solved // 4])
def test_a_plan_is_found_by_counting_few(more: Callable[[int], int]) -> None:
    """`more` is what a whole step takes besides what was solved."""
    profile = random_profile(random.Random(5), 40)
    tried: list[ChainPlan] = []

    def count(plan: ChainPlan) -> int:
        tried.append(plan)
        solved = simulate(profile, plan).activation_bytes
        return solved + more(solved)

    solution = Solution(profile, count)
    peaks = [count(point.plan) for point in solution.frontier]
    for budget in (*peaks[:: len(peaks) // 20], max(peaks), max(peaks) + 1, min(peaks) - 1):
        tried.clear()
        point = solution.fastest(budget)
        fitting = [one for one, peak in zip(solution.frontier, peaks, strict=True) if peak <= budget]
        assert len(tried) <= 7
        if not fitting:
            assert point is None
        else:
            assert point is not None
            assert count(point.plan) <= budget
            assert point in fitting[-2:]


def test_a_plan_is_simulated_by_hand() -> None:
    save = policy_of(None, saved=10, forward=15, backward=20, backward_total=23, replay_seconds=0.0)
    thin = policy_of(("a",), saved=2, forward=12, backward=18, backward_total=21, replay_seconds=0.5)
    unit = UnitProfile("u", 4, 8, 3, SECONDS, (save, thin))
    profile = ChainProfile((unit, unit, unit), (0,))
    # All kept: the third unit's backward on top of what two units and their outputs hold.
    assert simulate(profile, ChainPlan((SaveAll(0), SaveAll(1), SaveAll(2)))).activation_bytes == 2 * (10 + 4) + 20
    plan = ChainPlan((Recompute((SaveAll(0), SaveAll(1))), SaveSome(2, ("a",))))
    cost = simulate(profile, plan)
    # The second unit's backward when the range has run again: the first one held, with its output.
    assert cost.activation_bytes == (10 + 4) + 20
    # By then the third unit's parameters have their gradients; the second one's are in its own peak.
    assert cost.total_bytes == (10 + 4) + 23 + 3
    assert cost.replay_seconds == 0.5 + 1.0 + 0.75
    assert Simulator(profile).fixed_seconds(plan.steps) == 0.125 + 0.25 + 0.25


def offloaded(save_all: UnitPolicy, saved_bytes: int) -> UnitPolicy:
    return replace(save_all, bytes=replace(save_all.bytes, saved=saved_bytes), offloads=True)


def with_offload(profile: ChainProfile, rng: random.Random) -> ChainProfile:
    units = [
        replace(unit, policies=(*unit.policies, offloaded(unit.policies[0], rng.randint(-3, 0))))
        for unit in profile.units
    ]
    transfer = Transfer(rng.random() / 9, rng.random() / 9, overlaps=rng.random() < 0.5)
    return replace(profile, units=tuple(units)).with_transfer(transfer)


@pytest.mark.parametrize("seed", range(8))
def test_to_offload_makes_no_plan_worse_and_is_for_no_range(seed: int) -> None:
    rng = random.Random(seed)
    plain = random_profile(rng, 8, starts=(0, 5))
    profile = with_offload(plain, rng)
    frontier, without = solve(profile).frontier, solve(plain).frontier
    for point in without:
        fitting = [one for one in frontier if one.cost.activation_bytes <= point.cost.activation_bytes]
        assert fitting[-1].cost.replay_seconds <= point.cost.replay_seconds
    for point in frontier:
        assert simulate(profile, point.plan) == point.cost
    assert any(isinstance(step, Offload) for point in frontier for step in point.plan.steps)


def test_what_is_offloaded_is_simulated_by_hand() -> None:
    save = policy_of(None, saved=10, forward=15, backward=20, backward_total=23, replay_seconds=0.0)
    # Its input leaves the device, too.
    unit = UnitProfile("u", 4, 8, 3, SECONDS, (save, offloaded(save, -4)))
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


@pytest.mark.parametrize(
    ("held", "most", "is_first"), [(lambda _: 60, 2, True), (lambda one: 300 - 3 * one, 10, False)]
)
def test_the_lowest_plan_is_found_by_counting_few(held: Callable[[int], int], most: int, is_first: bool) -> None:
    """`held` is what the network holds besides what was solved: for some networks the less, the more is saved."""
    profile = random_profile(random.Random(5), 40)
    tried: list[ChainPlan] = []

    def count(plan: ChainPlan) -> int:
        tried.append(plan)
        solved = simulate(profile, plan).activation_bytes
        return solved + max(held(solved), 0)

    solution = Solution(profile, count)
    found = solution.lowest(math.inf)
    assert len(tried) <= most
    lowest = min(solution.frontier, key=lambda point: count(point.plan))
    assert (lowest == solution.frontier[0]) == is_first
    assert count(found.plan) <= 1.1 * count(lowest.plan)
