"""From a memory budget to a plan, before anything of the model's size is run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from aerofuse.checkpointing.budgets import Budget, format_bytes, parse_budget
from aerofuse.checkpointing.counting import TensorLike
from aerofuse.checkpointing.model_plan import (
    CheckpointingPlan,
    Plannable,
    Planned,
    Prediction,
    Scope,
    plannable_parts,
)
from aerofuse.checkpointing.plan import Plan, Step, shifted, units_of
from aerofuse.checkpointing.profiles import ChainProfile
from aerofuse.checkpointing.profiling import profile_chain
from aerofuse.checkpointing.simulation import PlanCost, simulate
from aerofuse.checkpointing.solver import Solution
from aerofuse.checkpointing.timing import Measured, Stopwatch
from aerofuse.memory.fake import fake_copy
from aerofuse.memory.kinds import Kind
from aerofuse.memory.report import MemoryReport
from aerofuse.memory.step import OptimizerName, Precision, count_training_step, sum_of_outputs

# The solver's bytes are those of units run alone. A plan that misses its budget when the whole step is counted is
# solved again with what it missed by taken off, so many times.
_MOST_CORRECTIONS = 5


def plan_checkpointing(
    model: nn.Module,
    input_shape: Sequence[int],
    budget: object,
    *,
    optimizer: OptimizerName | None = None,
    precision: Precision = "float32",
    input_dtype: torch.dtype = torch.float32,
    loss: Callable[[Any], Tensor] = sum_of_outputs,
    stopwatch: Stopwatch | None = None,
) -> CheckpointingPlan:
    """The fastest plan of `model` within `budget`: of a backbone, or of any module that has backbones in it.

    `input_shape` is that of the batch, `[B, 3, H, W]` for images. A budget in bytes (`6 * 2**30`, `"6 GiB"`) limits
    all that a step holds, a share (`0.5`) limits activations and temporaries to that share of their unchecked peak.
    Bytes are counted on fake tensors, and the chosen plan's step is counted as a whole. `stopwatch` says how long
    units take: by default one of each kind runs a few samples on the model's device.

    Raises `ValueError` for a model in which nothing that learns can be planned, and for a budget below the least
    possible, which the message names.
    """
    return Planner(
        model,
        input_shape,
        optimizer=optimizer,
        precision=precision,
        input_dtype=input_dtype,
        loss=loss,
        stopwatch=stopwatch,
    ).plan(budget)


class Planner:
    """All plans of one model for one step; see `plan_checkpointing` for the arguments."""

    def __init__(
        self,
        model: nn.Module,
        input_shape: Sequence[int],
        *,
        optimizer: OptimizerName | None = None,
        precision: Precision = "float32",
        input_dtype: torch.dtype = torch.float32,
        loss: Callable[[Any], Tensor] = sum_of_outputs,
        stopwatch: Stopwatch | None = None,
    ) -> None:
        self._model = model
        self._parts = plannable_parts(model)
        if not self._parts:
            raise ValueError("no part of this model that learns is a backbone made by create_backbone")
        # While a step is counted, nothing is planned but what is counted: neither parts nor the model as a whole.
        self._treated = dict(self._parts)
        if hasattr(model, "treatment"):
            self._treated[""] = model  # type: ignore[assignment]  # a model with a budget has no chain of its own
        self._scope = Scope(tuple(input_shape), precision)
        self._optimizer = optimizer
        self._input_dtype = input_dtype
        self._loss = loss
        self._lengths = [len(part.chain()) for part in self._parts.values()]
        with _treat(self._treated, {}):
            self._unchecked = self._count()
        self._layouts: dict[str, TensorLike] = {}
        self._profile = self._profile_parts(stopwatch or Measured())
        self._solutions: dict[bool, Solution] = {}

    def plan(self, budget: object) -> CheckpointingPlan:
        """The fastest plan within a budget. Raises `ValueError` for one below the least possible."""
        wanted = parse_budget(budget)
        counts_everything = wanted.num_bytes is not None
        solution = self._solution(counts_everything=counts_everything)
        outside = self.fixed_bytes if counts_everything else 0
        limit = wanted.num_bytes or round((wanted.share or 0) * self._unchecked.peak_activation_bytes)
        target: float = limit - outside
        if self._measure(self._unchecked, counts_everything=counts_everything) <= limit:
            target = math.inf
        least = solution.frontier[0]
        for _ in range(_MOST_CORRECTIONS):
            point = solution.cheapest(target) or least
            treatments = self._by_part(point.plan)
            with _treat(self._treated, treatments):
                report = self._count()
            peak = self._measure(report, counts_everything=counts_everything)
            if peak <= limit:
                return CheckpointingPlan(
                    self._scope,
                    self._optimizer,
                    str(wanted),
                    {name: tuple(unit.name for unit in part.chain()) for name, part in self._parts.items()},
                    treatments,
                    Prediction(report.peak_bytes, report.peak_activation_bytes, self._time_ratio(point.cost)),
                    self.unchecked,
                    self.curve(),
                )
            if point is least:
                break
            target -= peak - limit
        raise ValueError(self._too_little(wanted, self.least(counts_everything=counts_everything)))

    def least(self, *, counts_everything: bool = True) -> Prediction:
        """What the plan takes whose peak is the lowest: that of everything, or that of activations alone."""
        point = self._solution(counts_everything=counts_everything).frontier[0]
        with _treat(self._treated, self._by_part(point.plan)):
            report = self._count()
        return Prediction(report.peak_bytes, report.peak_activation_bytes, self._time_ratio(point.cost))

    def curve(self) -> tuple[Prediction, ...]:
        """Memory against time, from the least memory to no checkpointing, as solved."""
        return tuple(self._predict(point.cost) for point in self._solution(counts_everything=True).frontier)

    def solved(self, plan: CheckpointingPlan) -> PlanCost:
        """What the programme has for a plan of this planner, from units counted alone."""
        steps: list[Step] = []
        for part in plan.parts.values():
            steps += shifted(part.plan.steps, len(list(units_of(steps))))
        return simulate(self._profile, Plan(tuple(steps)))

    @property
    def unchecked(self) -> Prediction:
        """What the step takes without checkpointing."""
        return Prediction(self._unchecked.peak_bytes, self._unchecked.peak_activation_bytes, 1.0)

    @property
    def fixed_bytes(self) -> int:
        """What is there all the time, whatever the plan: parameters, optimiser state, inputs."""
        at_peak = self._unchecked.at_peak
        return at_peak[Kind.PARAMETERS] + at_peak[Kind.OPTIMIZER_STATE] + at_peak[Kind.INPUTS]

    def _solution(self, *, counts_everything: bool) -> Solution:
        if counts_everything not in self._solutions:
            self._solutions[counts_everything] = Solution(self._profile, count_gradients=counts_everything)
        return self._solutions[counts_everything]

    @staticmethod
    def _measure(report: MemoryReport, *, counts_everything: bool) -> int:
        return report.peak_bytes if counts_everything else report.peak_activation_bytes

    def _count(self) -> MemoryReport:
        return count_training_step(
            self._model,
            self._scope.input_shape,
            loss=self._loss,
            optimizer=self._optimizer,
            precision=self._scope.precision,  # type: ignore[arg-type]
            input_dtype=self._input_dtype,
            fake=True,
        )

    def _profile_parts(self, stopwatch: Stopwatch) -> ChainProfile:
        device = next(self._model.parameters()).device
        kind = "cpu" if device.type == "meta" else device.type
        autocast = partial(torch.autocast, kind, torch.bfloat16, enabled=self._scope.precision == "bf16")
        profiles: list[ChainProfile] = []
        mixed = self._scope.precision != "float32"
        with _treat(self._treated, {}), fake_copy(self._model, mixed_precision=mixed) as fake:
            self._layouts = self._input_layouts(fake.train(self._model.training))
            for (name, real), copy in zip(self._parts.items(), plannable_parts(fake).values(), strict=True):
                profiles.append(profile_chain(copy.chain(), real.chain(), self._layouts[name], stopwatch, autocast))
        joined = profiles[0]
        for profile in profiles[1:]:
            joined = joined.joined(profile)
        return joined

    def _input_layouts(self, fake: nn.Module) -> dict[str, TensorLike]:
        """What each chain is given, seen in a forward pass of the model on fake tensors."""
        layouts: dict[str, TensorLike] = {}

        def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
            return lambda _module, arguments: layouts.update({name: TensorLike.of(arguments[0])})

        handles: list[RemovableHandle] = []
        for name in self._parts:
            handles.append(fake.get_submodule(name).register_forward_pre_hook(note(name)))
        device = next(fake.parameters()).device
        make = torch.rand if self._input_dtype.is_floating_point else torch.zeros
        with torch.no_grad():
            fake(make(*self._scope.input_shape, dtype=self._input_dtype, device=device))
        for handle in handles:
            handle.remove()
        return layouts

    def _by_part(self, plan: Plan) -> dict[str, Planned]:
        """The steps of each chain. No range crosses from one into the next."""
        treatments: dict[str, Planned] = {}
        start = 0
        for name, length in zip(self._parts, self._lengths, strict=True):
            steps = [step for step in plan.steps if start <= next(units_of([step])) < start + length]
            scope = Scope(self._layouts[name].size, self._scope.precision)
            treatments[name] = Planned(Plan(shifted(steps, -start)), scope)
            start += length
        return treatments

    def _time_ratio(self, cost: PlanCost) -> float:
        return 1 + cost.replay_seconds / self._profile.seconds

    def _predict(self, cost: PlanCost) -> Prediction:
        return Prediction(cost.total_bytes + self.fixed_bytes, cost.activation_bytes, self._time_ratio(cost))

    def _too_little(self, budget: Budget, least: Prediction) -> str:
        if budget.share is not None:
            unchecked_bytes = self._unchecked.peak_activation_bytes
            share = least.activation_bytes / unchecked_bytes
            what = f"{share:.3f} of the unchecked peak of {format_bytes(unchecked_bytes)}"
        else:
            outside = format_bytes(self.fixed_bytes)
            what = f"{format_bytes(least.peak_bytes)}, {outside} of it for parameters and the like"
        return (
            f"a budget of {budget} is too little for inputs {list(self._scope.input_shape)} in "
            f"{self._scope.precision}: the least is {what}; "
            "a smaller batch, smaller images or bf16 would lower it"
        )


@contextmanager
def _treat(parts: Mapping[str, Plannable], treatments: Mapping[str, Planned]) -> Iterator[None]:
    """Treat the parts so; those that are not named keep everything. Afterwards all is as before."""
    before = {name: part.treatment for name, part in parts.items()}
    try:
        for name, part in parts.items():
            part.treatment = treatments.get(name)
        yield
    finally:
        for name, part in parts.items():
            part.treatment = before[name]
