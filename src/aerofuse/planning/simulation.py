"""What a plan costs, unit by unit in exact bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aerofuse.checkpointing.steps import ChainPlan, Recompute, SaveAll, SaveSome, Step, units_of
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
    if plan.num_units != len(profile.units):
        raise ValueError(f"a plan for {plan.num_units} units has no cost on a chain of {len(profile.units)}")
    run = _Simulation(profile.units)
    run.range(plan.steps, alive=0, waiting=0, gradients=0)
    return PlanCost(run.activation_bytes, run.total_bytes, run.replay_seconds, run.fixed_seconds)


class _Simulation:
    def __init__(self, units: Sequence[UnitProfile]) -> None:
        self._units = units
        self.activation_bytes = self.total_bytes = 0
        self.replay_seconds = self.fixed_seconds = 0.0

    def range(self, steps: Sequence[Step], alive: int, waiting: int, gradients: int, copied: int = 0) -> int:
        """Forward and backward of some steps; returns the gradients of parameters that are there afterwards.

        `alive` are the bytes of what is outside, `waiting` the gradient of the last unit's output where it is there
        already, `gradients` those of later parameters; `copied` are the running statistics of these units, where
        copies are updated.
        """
        before: list[int] = []
        for step in steps:
            if copied and not isinstance(step, Recompute):
                # Normalisation saves its statistics for the backward pass, here the copies.
                saved = sum(self._unit(index).statistics_bytes for index in units_of([step]))
                alive += saved
                copied -= saved
            before.append(alive)
            alive += self._forward(step, alive + waiting + copied, gradients)
        for step, outside in zip(reversed(steps), reversed(before), strict=True):
            gradients = self._backward(step, outside, gradients)
        return gradients

    def _forward(self, step: Step, outside: int, gradients: int) -> int:
        """Return what the step leaves behind."""
        if not isinstance(step, Recompute):
            row = self._row(step)
            self._note(outside + row.forward_bytes, gradients)
            return row.saved_bytes + row.unit.output_bytes
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

    def _row(self, step: SaveAll | SaveSome) -> LinkedUnits:
        unit = self._units[step.unit]
        others = list(units_of([step]))[1:]
        for policy in unit.policies:
            row = LinkedUnits(unit, policy, 1 + len(others))
            if policy.step(step.unit, row.count) == step:
                if others and (policy.link_seconds is None or not all(unit.is_like(self._units[i]) for i in others)):
                    break
                return row
        raise ValueError(f"unit {unit.name} has no profile of {step}")
