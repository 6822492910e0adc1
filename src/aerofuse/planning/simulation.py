"""What a plan costs, unit by unit in exact bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aerofuse.checkpointing.plan import Keep, Plan, Recompute, Step, Thin, units_of
from aerofuse.planning.unit_profiles import ChainProfile, Row, UnitProfile


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


def simulate(profile: ChainProfile, plan: Plan) -> PlanCost:
    """Follow a plan forward and backward. Raises `ValueError` where it is for another number of units or ways."""
    if plan.num_units != len(profile.units):
        raise ValueError(f"a plan for {plan.num_units} units has no cost on a chain of {len(profile.units)}")
    run = _Run(profile.units)
    run.range(plan.steps, held=0, waiting=0, gradients=0)
    return PlanCost(run.activation_bytes, run.total_bytes, run.replay_seconds, run.fixed_seconds)


class _Run:
    def __init__(self, units: Sequence[UnitProfile]) -> None:
        self._units = units
        self.activation_bytes = self.total_bytes = 0
        self.replay_seconds = self.fixed_seconds = 0.0

    def range(self, steps: Sequence[Step], held: int, waiting: int, gradients: int, copied: int = 0) -> int:
        """Forward and backward of some steps; returns the gradients of parameters that are there afterwards.

        `held` is what is held outside, `waiting` the gradient of the last unit's output where it is there already,
        `gradients` those of later parameters; `copied` are the running statistics of these units, where copies are
        updated.
        """
        before: list[int] = []
        for step in steps:
            if copied and not isinstance(step, Recompute):
                # Normalisation saves its statistics for the backward pass, here the copies.
                saved = sum(self._unit(index).statistics_bytes for index in units_of([step]))
                held += saved
                copied -= saved
            before.append(held)
            held += self._forward(step, held + waiting + copied, gradients)
        for step, outside in zip(reversed(steps), reversed(before), strict=True):
            gradients = self._backward(step, outside, gradients)
        return gradients

    def _forward(self, step: Step, outside: int, gradients: int) -> int:
        """What the step leaves behind."""
        if not isinstance(step, Recompute):
            row = self._row(step)
            self._note(outside + row.forward_bytes, gradients)
            return row.held_bytes + row.unit.output_bytes
        incoming = 0
        for index in units_of(step.steps):
            unit = self._unit(index)
            self._note(outside + incoming + unit.passing_bytes, gradients)
            incoming = unit.output_bytes
        return unit.output_bytes

    def _backward(self, step: Step, outside: int, gradients: int) -> int:
        if not isinstance(step, Recompute):
            row = self._row(step)
            self.activation_bytes = max(self.activation_bytes, outside + row.backward_bytes)
            self.total_bytes = max(self.total_bytes, outside + gradients + row.backward_total_bytes)
            self.replay_seconds += row.replay_seconds
            self.fixed_seconds += row.fixed_seconds
            return gradients + row.gradient_bytes
        indices = list(units_of(step.steps))
        last = self._unit(indices[-1])
        self.replay_seconds += sum(self._unit(index).whole_rerun_seconds for index in indices[:-1])
        self.replay_seconds += last.rerun_seconds
        self.fixed_seconds += sum(self._unit(index).rerun_fixed_seconds for index in indices)
        statistics = sum(self._unit(index).statistics_bytes for index in indices)
        return self.range(step.steps, outside, last.output_bytes, gradients, statistics)

    def _note(self, activation_bytes: int, gradients: int) -> None:
        self.activation_bytes = max(self.activation_bytes, activation_bytes)
        self.total_bytes = max(self.total_bytes, activation_bytes + gradients)

    def _unit(self, index: int) -> UnitProfile:
        return self._units[index]

    def _row(self, step: Keep | Thin) -> Row:
        unit = self._units[step.unit]
        others = list(units_of([step]))[1:]
        for way in unit.ways:
            row = Row(unit, way, 1 + len(others))
            if way.step(step.unit, row.count) == step:
                if others and (way.link_seconds is None or not all(unit.is_like(self._units[i]) for i in others)):
                    break
                return row
        raise ValueError(f"unit {unit.name} has no profile of {step}")
