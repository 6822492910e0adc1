"""The fastest plan for every budget, exact in bytes; `cost_table` has the dynamic program."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from aerofuse.checkpointing.steps import ChainPlan
from aerofuse.memory.fake import no_full_collections
from aerofuse.planning.cost_table import CostTable
from aerofuse.planning.profiling import ChainProfile
from aerofuse.planning.simulation import PlanCost, Simulator, simulate

LEVELS = 800
# The least memory is a few percent of the most, where the levels of all of it are coarse: the lower part has its own.
_CEILINGS = (1.0, 0.25)
# A plan's whole step is counted, and where that is not what was solved, the difference is taken off, so many times.
_MOST_TRIALS = 6
_LEAST_GAIN = 0.0005  # of a step; for less, no further plan is counted


@dataclass(frozen=True)
class FrontierPoint:
    """A plan that nothing else beats in both memory and time."""

    plan: ChainPlan
    cost: PlanCost


class Solution:
    """All budgets of one chain, solved at once.

    With `count_gradients` the gradients of parameters count, as they appear; otherwise activations and temporaries
    alone.
    """

    def __init__(self, profile: ChainProfile, *, count_gradients: bool = False, levels: int = LEVELS) -> None:
        self.profile = profile
        self.count_gradients = count_gradients
        self._levels = levels
        self._save_all = ChainPlan.save_all(len(profile.units))
        self.baseline = simulate(profile, self._save_all)

    def _peak(self, cost: PlanCost) -> int:
        return cost.total_bytes if self.count_gradients else cost.activation_bytes

    @cached_property
    def frontier(self) -> tuple[FrontierPoint, ...]:
        """Plans from the least memory to the least time; each is faster than those before and takes more."""
        # Peaks of plans that offload are not exact in the table, so those that do not are looked for on their own, too.
        profiles = dict.fromkeys([self.profile, self.profile.without_offload()])
        simulator = Simulator(self.profile)
        points = [FrontierPoint(self._save_all, self.baseline)]
        with no_full_collections():
            for profile, ceiling in product(profiles, _CEILINGS):
                most_bytes = ceiling * self._peak(self.baseline)
                table = CostTable(profile, self.count_gradients, most_bytes, self._levels)
                points += [FrontierPoint(plan, simulator.cost(plan)) for plan in table.plans()]
        best: list[FrontierPoint] = []
        for point in sorted(points, key=lambda point: (self._peak(point.cost), point.cost.replay_seconds)):
            if not best or point.cost.replay_seconds < best[-1].cost.replay_seconds:
                best.append(point)
        return tuple(best)

    def cheapest_counted(self, budget_bytes: int, count: Callable[[ChainPlan], int]) -> FrontierPoint | None:
        """Return the fastest plan within a budget by the peak that is counted for its whole step, `None` for none.

        Few plans are tried.
        """
        # Of the frontier: the last plan that fits, and the first that does not.
        fits, misses = -1, len(self.frontier)
        place, before, steps = misses - 1, (0, 0), 1
        for _ in range(_MOST_TRIALS):
            solved, counted = self.peak_bytes(self.frontier[place]), count(self.frontier[place].plan)
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
        if fits < 0 < misses and count(self.frontier[0].plan) <= budget_bytes:
            fits = 0
        return self.frontier[fits] if fits >= 0 else None

    def _place_within(self, budget_bytes: float) -> int:
        """Return the place in the frontier of the fastest plan within a budget, -1 where there is none."""
        return bisect_left([self._peak(point.cost) for point in self.frontier], budget_bytes + 1) - 1

    def _gain(self, slow: int, fast: int) -> float:
        saved = self.frontier[slow].cost.replay_seconds - self.frontier[fast].cost.replay_seconds
        return saved / self.profile.seconds

    def peak_bytes(self, point: FrontierPoint) -> int:
        """Return the peak of one of the plans, gradients of parameters included where they count."""
        return self._peak(point.cost)


def _slope(one: tuple[int, int], other: tuple[int, int]) -> float:
    """Return how counted bytes grow with solved ones, from two points (solved, counted)."""
    if one[0] == other[0]:
        return 1.0
    return min(max((one[1] - other[1]) / (one[0] - other[0]), 0.5), 2.0)
