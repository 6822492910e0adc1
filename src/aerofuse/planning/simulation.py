"""What a plan costs, unit by unit in exact bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from aerofuse.checkpointing.steps import ChainPlan, Offload, Recompute, SaveAll, SaveSome, Step, units_of
from aerofuse.planning.profiling import ChainProfile, UnitPolicy, UnitProfile


@dataclass(frozen=True)
class LinkedUnits:
    """Linked units of one kind, all under the same policy; one unit is the shortest row.

    Of each unit but the first the input is there only while its backward pass runs.
    """

    unit: UnitProfile
    policy: UnitPolicy
    count: int

    @property
    def saved_bytes(self) -> int:
        """Alive between forward and backward, the output of the last unit left out."""
        return self.count * self.policy.saved_bytes + (self.count - 1) * self.policy.link_bytes

    @property
    def late_bytes(self) -> int:
        """Return what is there still while the unit after runs forward, and again while that runs backward."""
        return self.unit.moved_bytes if self.policy.offloads else 0

    @property
    def replay_seconds(self) -> float:
        """Return what is computed again: each input anew from the first."""
        links = self.count * (self.count - 1) // 2
        return self.count * self.policy.replay_seconds + links * (self.policy.link_seconds or 0.0)

    @property
    def fixed_seconds(self) -> float:
        """Of them, those that are the same for a batch of any size."""
        return self.count * self.policy.fixed_seconds

    @property
    def gradient_bytes(self) -> int:
        """Gradients of the parameters."""
        return self.count * self.unit.gradient_bytes

    def saved_before(self, position: int) -> int:
        """Return what the units before one of the row save, and the input that is made for it."""
        made = self.unit.output_bytes if position else 0
        return position * (self.policy.saved_bytes + self.policy.link_bytes) + made

    @property
    def forward_bytes(self) -> int:
        """At most alive while the row runs forward."""
        return self.saved_before(self.count - 1) + self.policy.forward_bytes

    @property
    def backward_bytes(self) -> int:
        """At most alive in the backward pass, without gradients of parameters."""
        return self.saved_before(self.count - 1) + self.policy.backward_bytes

    @property
    def backward_total_bytes(self) -> int:
        """Return the same with the gradients of its parameters, which grow while what is saved shrinks."""
        return max(
            self.saved_before(position)
            + self.policy.backward_total_bytes
            + (self.count - 1 - position) * self.unit.gradient_bytes
            for position in range(self.count)
        )


@dataclass(frozen=True)
class PlanCost:
    """What a step takes under a plan, inside of the chain.

    `activation_bytes` is the peak of activations and temporaries, `total_bytes` that of the same with the gradients
    of parameters, as they appear in the backward pass; `replay_seconds` is the time of what is computed again, and of
    it `fixed_seconds` are the same for a batch of any size.
    """

    activation_bytes: int
    total_bytes: int
    replay_seconds: float
    fixed_seconds: float = 0.0


def simulate(profile: ChainProfile, plan: ChainPlan) -> PlanCost:
    """Follow a plan forward and backward. Raises `ValueError` where it is for another number of units or policies."""
    return Simulator(profile).cost(plan)


@dataclass(frozen=True)
class _RangeCost:
    """Forward and backward of some steps, in bytes besides those that are alive outside, and in seconds.

    `total_bytes` does not count the gradients of later parameters, `gradient_bytes` are those that it adds.
    """

    activation_bytes: int
    total_bytes: int
    gradient_bytes: int
    replay_seconds: float
    fixed_seconds: float


@dataclass(frozen=True)
class _StepCost:
    """At most alive while a step runs forward, what it then leaves behind, and its backward pass.

    `late_bytes` are there besides, forward and backward, while the step after it runs.
    """

    forward_bytes: int
    left_bytes: int
    late_bytes: int
    backward: _RangeCost


class Simulator:
    """Follows many plans of one chain. A step takes the same in each of them, and that is found once."""

    def __init__(self, profile: ChainProfile) -> None:
        self._units = profile.units
        self._costs: dict[Step, _StepCost] = {}

    def cost(self, plan: ChainPlan) -> PlanCost:
        """Return what a step takes under a plan. Raises `ValueError` as `simulate` does."""
        if plan.num_units != len(self._units):
            raise ValueError(f"a plan for {plan.num_units} units has no cost on a chain of {len(self._units)}")
        whole = self._range(plan.steps, waiting=0, copied=0)
        return PlanCost(whole.activation_bytes, whole.total_bytes, whole.replay_seconds, whole.fixed_seconds)

    def _range(self, steps: Sequence[Step], waiting: int, copied: int) -> _RangeCost:
        """Return what some steps take.

        `waiting` is the gradient of the last unit's output where it is there already; `copied` are the running
        statistics of these units, where copies are updated.
        """
        costs = [self._step(step) for step in steps]
        before: list[int] = []
        alive = late = peak = 0
        for step, cost in zip(steps, costs, strict=True):
            if copied and not isinstance(step, Recompute):
                # Normalisation saves its statistics for the backward pass, here the copies.
                saved = sum(self._units[index].statistics_bytes for index in units_of([step]))
                alive += saved
                copied -= saved
            before.append(alive + late)
            peak = max(peak, alive + late + waiting + copied + cost.forward_bytes)
            alive += cost.left_bytes
            late = cost.late_bytes
        total, gradients, replay_seconds, fixed_seconds = peak, 0, 0.0, 0.0
        for cost, outside in zip(reversed(costs), reversed(before), strict=True):
            backward = cost.backward
            peak = max(peak, outside + backward.activation_bytes)
            total = max(total, outside + gradients + backward.total_bytes)
            gradients += backward.gradient_bytes
            replay_seconds += backward.replay_seconds
            fixed_seconds += backward.fixed_seconds
        return _RangeCost(peak, total, gradients, replay_seconds, fixed_seconds)

    def _step(self, step: Step) -> _StepCost:
        cost = self._costs.get(step)
        if cost is None:
            cost = self._recomputed(step) if isinstance(step, Recompute) else _row_cost(self._row(step))
            self._costs[step] = cost
        return cost

    def _recomputed(self, step: Recompute) -> _StepCost:
        units = [self._units[index] for index in units_of(step.steps)]
        incoming = (0, *(unit.output_bytes for unit in units))
        passing = max(before + unit.passing_bytes for before, unit in zip(incoming, units, strict=False))
        again = self._range(step.steps, incoming[-1], sum(unit.statistics_bytes for unit in units))
        seconds = sum(unit.whole_rerun_seconds for unit in units[:-1]) + units[-1].rerun_seconds
        fixed_seconds = again.fixed_seconds + sum(unit.rerun_fixed_seconds for unit in units)
        backward = replace(again, replay_seconds=again.replay_seconds + seconds, fixed_seconds=fixed_seconds)
        return _StepCost(passing, incoming[-1], 0, backward)

    def _row(self, step: SaveAll | Offload | SaveSome) -> LinkedUnits:
        unit = self._units[step.unit]
        others = list(units_of([step]))[1:]
        for policy in unit.choices:
            row = LinkedUnits(unit, policy, 1 + len(others))
            if policy.step(step.unit, row.count) == step:
                if others and (policy.link_seconds is None or not all(unit.is_like(self._units[i]) for i in others)):
                    break
                return row
        raise ValueError(f"unit {unit.name} has no profile of {step}")


def _row_cost(row: LinkedUnits) -> _StepCost:
    return _StepCost(
        row.forward_bytes,
        row.saved_bytes + row.unit.output_bytes,
        row.late_bytes,
        _RangeCost(
            row.backward_bytes, row.backward_total_bytes, row.gradient_bytes, row.replay_seconds, row.fixed_seconds
        ),
    )
