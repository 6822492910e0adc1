"""What a plan costs, unit by unit in exact bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aerofuse.checkpointing.plan import Plan, Recompute, Step, units_of
from aerofuse.checkpointing.profiles import ChainProfile, UnitProfile, Way


@dataclass(frozen=True)
class PlanCost:
    """What a step takes under a plan, inside of the chain.

    `activation_bytes` is the peak of activations and temporaries, `total_bytes` that of the same with the gradients
    of parameters, as they appear in the backward pass; `replay_seconds` is the time of what is computed again.
    """

    activation_bytes: int
    total_bytes: int
    replay_seconds: float


def simulate(profile: ChainProfile, plan: Plan) -> PlanCost:
    """Follow a plan forward and backward. Raises `ValueError` where it is for another number of units or ways."""
    if plan.num_units != len(profile.units):
        raise ValueError(f"a plan for {plan.num_units} units has no cost on a chain of {len(profile.units)}")
    run = _Run(profile.units)
    run.range(plan.steps, held=0, waiting=0, gradients=0)
    return PlanCost(run.activation_bytes, run.total_bytes, run.replay_seconds)


class _Run:
    def __init__(self, units: Sequence[UnitProfile]) -> None:
        self._units = units
        self.activation_bytes = self.total_bytes = 0
        self.replay_seconds = 0.0

    def range(self, steps: Sequence[Step], held: int, waiting: int, gradients: int, copied: int = 0) -> int:
        """Forward and backward of some steps; returns the gradients of parameters that are there afterwards.

        `held` is what is held outside, `waiting` the gradient of the last unit's output where it is there already,
        `gradients` those of later parameters; `copied` are running statistics whose copies are updated in place of them.
        """
        before: list[int] = []
        for step in steps:
            if copied and not isinstance(step, Recompute):
                # Normalisation saves its statistics for the backward pass, here the copies.
                held += self._unit(step.unit).statistics_bytes
                copied -= self._unit(step.unit).statistics_bytes
            before.append(held)
            held += self._forward(step, held + waiting + copied, gradients)
        for step, outside in zip(reversed(steps), reversed(before), strict=True):
            gradients = self._backward(step, outside, gradients)
        return gradients

    def _forward(self, step: Step, outside: int, gradients: int) -> int:
        """What the step leaves behind."""
        if not isinstance(step, Recompute):
            unit, way = self._unit(step.unit), self._way(step)
            self._note(outside + way.forward_bytes, gradients)
            return way.held_bytes + unit.output_bytes
        incoming = 0
        for index in units_of(step.steps):
            unit = self._unit(index)
            self._note(outside + incoming + unit.passing_bytes, gradients)
            incoming = unit.output_bytes
        return unit.output_bytes

    def _backward(self, step: Step, outside: int, gradients: int) -> int:
        if not isinstance(step, Recompute):
            unit, way = self._unit(step.unit), self._way(step)
            self.activation_bytes = max(self.activation_bytes, outside + way.backward_bytes)
            self.total_bytes = max(self.total_bytes, outside + gradients + way.backward_total_bytes)
            self.replay_seconds += way.replay_seconds
            return gradients + unit.gradient_bytes
        indices = list(units_of(step.steps))
        last = self._unit(indices[-1])
        self.replay_seconds += sum(self._unit(index).whole_rerun_seconds for index in indices[:-1])
        self.replay_seconds += last.rerun_seconds
        statistics = sum(self._unit(index).statistics_bytes for index in indices)
        return self.range(step.steps, outside, last.output_bytes, gradients, statistics)

    def _note(self, activation_bytes: int, gradients: int) -> None:
        self.activation_bytes = max(self.activation_bytes, activation_bytes)
        self.total_bytes = max(self.total_bytes, activation_bytes + gradients)

    def _unit(self, index: int) -> UnitProfile:
        return self._units[index]

    def _way(self, step: Step) -> Way:
        assert not isinstance(step, Recompute)
        for way in self._units[step.unit].ways:
            if way.step(step.unit) == step:
                return way
        raise ValueError(f"unit {self._units[step.unit].name} has no profile of {step}")
