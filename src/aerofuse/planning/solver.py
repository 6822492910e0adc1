"""The fastest plan for every budget, exact in bytes; `cost_table` has the dynamic program."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from aerofuse.checkpointing.steps import ChainPlan
from aerofuse.planning.cost_table import CostTable
from aerofuse.planning.simulation import PlanCost, Simulator
from aerofuse.planning.unit_costs import ChainProfile

LEVELS = 800
# The least memory is a few percent of the most, where the levels of all of it are coarse: the lower part has its own.
_CEILINGS = (1.0, 0.25)
# A plan's whole step is counted, and where that is not what was solved, the difference is taken off, so many times.
_MOST_TRIALS = 6
_LEAST_GAIN = 0.0005  # of a step; for less, no further plan is counted
_LEAST_TRIALS = 8
_NEARLY = 1.02


@dataclass(frozen=True)
class FrontierPoint:
    """A plan that nothing else beats in both memory and time; `peak_bytes` is what the solution is about."""

    plan: ChainPlan
    cost: PlanCost
    peak_bytes: int


class Solution:
    """All budgets of one chain, solved at once.

    With `count_gradients` the gradients of parameters count, as they appear; otherwise activations and temporaries
    alone. `count` returns the same peak of the whole step under a plan, which units alone do not tell.
    """

    def __init__(
        self,
        profile: ChainProfile,
        count: Callable[[ChainPlan], int],
        *,
        count_gradients: bool = False,
        levels: int = LEVELS,
    ) -> None:
        self._profile, self._count, self._count_gradients, self._levels = profile, count, count_gradients, levels
        self._simulator = Simulator(profile)

    @cached_property
    def frontier(self) -> tuple[FrontierPoint, ...]:
        """Plans from the least memory to the least time; each is faster than those before and takes more."""
        save_all = self._point(ChainPlan.save_all(len(self._profile.units)))
        # Peaks of plans that offload are not exact in the table, so those that do not are looked for on their own, too.
        profiles = dict.fromkeys([self._profile, self._profile.only(lambda policy: not policy.offloads)])
        points = [save_all]
        for profile, ceiling in product(profiles, _CEILINGS):
            table = CostTable(profile, self._count_gradients, ceiling * save_all.peak_bytes, self._levels)
            points += map(self._point, table.plans())
        best: list[FrontierPoint] = []
        for point in sorted(points, key=lambda point: (point.peak_bytes, point.cost.replay_seconds)):
            if not best or point.cost.replay_seconds < best[-1].cost.replay_seconds:
                best.append(point)
        return tuple(best)

    def _point(self, plan: ChainPlan) -> FrontierPoint:
        cost = self._simulator.cost(plan)
        return FrontierPoint(plan, cost, cost.total_bytes if self._count_gradients else cost.activation_bytes)

    def fastest(self, budget_bytes: int) -> FrontierPoint | None:
        """Return the fastest plan within a budget by its counted peak, `None` for none. Few plans are tried."""
        # Of the frontier: the last plan that fits, and the first that does not.
        fits, misses = -1, len(self.frontier)
        place, before, steps = misses - 1, (0, 0), 1
        for _ in range(_MOST_TRIALS):
            solved, counted = self.frontier[place].peak_bytes, self._count(self.frontier[place].plan)
            if counted <= budget_bytes:
                fits = place
            else:
                misses = place
            place = self._place_within(solved + (budget_bytes - counted) / _slope(before, (solved, counted)))
            before = solved, counted
            if place >= misses:
                place, steps = misses - steps, 2 * steps
            place = max(place, 0)
            if place <= fits or (fits >= 0 and self._gain(fits, place) < _LEAST_GAIN):
                break
        if fits < 0 < misses and self._count(self.frontier[0].plan) <= budget_bytes:
            fits = 0
        return self.frontier[fits] if fits >= 0 else None

    def lowest(self, most_replay_seconds: float) -> FrontierPoint:
        """Return the plan of the lowest counted peak within a bound on time.

        The network holds what goes into a stage while that runs, also where its units let it go, and units alone do
        not tell. So another plan may be lower than the one that is lowest as solved.
        """
        allowed = [point for point in self.frontier if point.cost.replay_seconds <= most_replay_seconds]
        first_bytes = self._count(allowed[0].plan)
        if first_bytes <= _NEARLY * allowed[0].peak_bytes:
            return allowed[0]
        candidates = [point for point in allowed if point.peak_bytes <= first_bytes]
        if self._count(candidates[len(candidates) // 2].plan) >= first_bytes:
            return allowed[0]  # what the network holds is not less where more is saved
        some = candidates[:: -(-len(candidates) // _LEAST_TRIALS)]
        return min(some, key=lambda point: self._count(point.plan))

    def _place_within(self, budget_bytes: float) -> int:
        """Return the place in the frontier of the fastest plan within a budget, -1 where there is none."""
        return bisect_left(self.frontier, budget_bytes + 1, key=lambda point: point.peak_bytes) - 1

    def _gain(self, slow: int, fast: int) -> float:
        saved = self.frontier[slow].cost.replay_seconds - self.frontier[fast].cost.replay_seconds
        return saved / self._profile.seconds


def _slope(one: tuple[int, int], other: tuple[int, int]) -> float:
    """Return how counted bytes grow with solved ones, from two points (solved, counted)."""
    if one[0] == other[0]:
        return 1.0
    return min(max((one[1] - other[1]) / (one[0] - other[0]), 0.5), 2.0)
