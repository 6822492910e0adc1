"""What a plan costs, unit by unit in exact bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from aerofuse.checkpointing.steps import ChainPlan, Recompute, SaveSome, Step, units_of
from aerofuse.planning.unit_costs import ChainProfile, UnitPolicy, UnitProfile


@dataclass(frozen=True)
class PlanCost:
    """What some steps take, forward and backward, in bytes besides those that are alive outside.

    `activation_bytes` is the peak of activations and temporaries, `total_bytes` that of the same with the gradients
    of parameters, as they appear in the backward pass. `gradient_bytes` are those of these units' own parameters.
    `replay_seconds` is the time of what is computed again.
    """

    activation_bytes: int
    total_bytes: int
    gradient_bytes: int
    replay_seconds: float


@dataclass(frozen=True)
class StepCost:
    """At most alive while a step runs forward, what it then leaves behind, and its backward pass alone.

    `late_bytes` are there besides, forward and backward, while the step after it runs.
    """

    forward_bytes: int
    left_bytes: int
    late_bytes: int
    backward: PlanCost


def row_cost(unit: UnitProfile, policy: UnitPolicy, count: int) -> StepCost:
    """Return what linked units of one kind take, all under the same policy; one unit is the shortest row.

    Of each unit but the first the input is there only while its backward pass runs; it is computed from the first.
    """

    def saved_before(position: int) -> int:
        """Return what the units before one of the row save, and the input that is made for it."""
        made = unit.output_bytes if position else 0
        return position * (policy.bytes.saved + policy.link_bytes) + made

    links = count * (count - 1) // 2
    backward = PlanCost(
        activation_bytes=saved_before(count - 1) + policy.bytes.backward,
        # Gradients of parameters grow while what is saved shrinks.
        total_bytes=max(
            saved_before(position) + policy.bytes.backward_total + (count - 1 - position) * unit.gradient_bytes
            for position in range(count)
        ),
        gradient_bytes=count * unit.gradient_bytes,
        replay_seconds=count * policy.replay_seconds + links * (policy.link_seconds or 0.0),
    )
    saved_bytes = count * policy.bytes.saved + (count - 1) * policy.link_bytes
    return StepCost(
        forward_bytes=saved_before(count - 1) + policy.bytes.forward,
        left_bytes=saved_bytes + unit.output_bytes,
        late_bytes=unit.moved_bytes if policy.offloads else 0,
        backward=backward,
    )


class Simulator:
    """Follows many plans of one chain. A step takes the same in each of them, and that is found once."""

    def __init__(self, profile: ChainProfile) -> None:
        self._units = profile.units
        self._costs: dict[Step, StepCost] = {}

    def cost(self, plan: ChainPlan) -> PlanCost:
        """Follow a plan. Raises `ValueError` where it is for another number of units or policies."""
        if plan.num_units != len(self._units):
            raise ValueError(f"a plan for {plan.num_units} units has no cost on a chain of {len(self._units)}")
        return self._range(plan.steps, waiting=0)

    def fixed_seconds(self, steps: Sequence[Step]) -> float:
        """Return what checkpointing takes besides what is computed again: the same for a batch of any size."""
        seconds = 0.0
        for step in steps:
            units = [self._units[index] for index in units_of([step])]
            if isinstance(step, Recompute):
                seconds += sum(unit.seconds.rerun_fixed for unit in units) + self.fixed_seconds(step.steps)
            elif isinstance(step, SaveSome):
                seconds += sum(unit.seconds.selective_fixed for unit in units)
        return seconds

    def _range(self, steps: Sequence[Step], waiting: int) -> PlanCost:
        """`waiting` is the gradient of the last unit's output where it is there already."""
        costs = [self._step(step) for step in steps]
        before: list[int] = []
        alive = late = peak = 0
        for cost in costs:
            before.append(alive + late)
            peak = max(peak, alive + late + waiting + cost.forward_bytes)
            alive += cost.left_bytes
            late = cost.late_bytes
        total, gradients, replay_seconds = peak, 0, 0.0
        for cost, outside in zip(reversed(costs), reversed(before), strict=True):
            peak = max(peak, outside + cost.backward.activation_bytes)
            total = max(total, outside + gradients + cost.backward.total_bytes)
            gradients += cost.backward.gradient_bytes
            replay_seconds += cost.backward.replay_seconds
        return PlanCost(peak, total, gradients, replay_seconds)

    def _step(self, step: Step) -> StepCost:
        cost = self._costs.get(step)
        if cost is None:
            cost = self._costs[step] = self._recomputed(step) if isinstance(step, Recompute) else self._row(step)
        return cost

    def _recomputed(self, step: Recompute) -> StepCost:
        units = [self._units[index] for index in units_of(step.steps)]
        incoming = (0, *(unit.output_bytes for unit in units))
        passing = max(before + unit.passing_bytes for before, unit in zip(incoming, units, strict=False))
        again = self._range(step.steps, waiting=incoming[-1])
        seconds = sum(unit.seconds.whole_rerun for unit in units[:-1]) + units[-1].seconds.rerun
        return StepCost(passing, incoming[-1], 0, replace(again, replay_seconds=again.replay_seconds + seconds))

    def _row(self, step: Step) -> StepCost:
        first, *others = (self._units[index] for index in units_of([step]))
        count = 1 + len(others)
        for policy in first.policies:
            may_follow = not others or (policy.link_seconds is not None and all(map(first.is_like, others)))
            if may_follow and policy.step(next(units_of([step])), count) == step:
                return row_cost(first, policy, count)
        raise ValueError(f"unit {first.name} has no profile of {step}")
