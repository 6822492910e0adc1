"""From a memory budget to a plan, before anything of the model's size is run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from aerofuse.checkpointing.attached import Attached
from aerofuse.checkpointing.budget import Budget, format_bytes, parse_budget
from aerofuse.checkpointing.choosing import trace_chains
from aerofuse.checkpointing.find_units import IsUnit, TracedChain, names_of
from aerofuse.checkpointing.plan import CheckpointingPlan, StepPrediction
from aerofuse.checkpointing.policy import Scope, Structure
from aerofuse.checkpointing.steps import ChainPlan, Step, shifted, units_of
from aerofuse.memory.fake import no_full_collections
from aerofuse.memory.optimizers import choose_optimizer
from aerofuse.memory.report import Kind, MemoryReport
from aerofuse.memory.step import FakeTraining, Precision, TrainingStep, sum_of_outputs
from aerofuse.planning.bound_units import bind, glue_bytes, input_of
from aerofuse.planning.clocks import Measured
from aerofuse.planning.estimates import Stopwatch
from aerofuse.planning.profiling import Profiler
from aerofuse.planning.simulation import PlanCost, Simulator
from aerofuse.planning.solver import FrontierPoint, Solution
from aerofuse.planning.unit_costs import ChainProfile, UnitProfile

# The plan of the least memory may take so many times as long as a step without checkpointing. A net of many equal units
# has plans that take less memory and much longer: ViT-B's takes 0.065 of it and 3.2 times as long.
MOST_TIME_RATIO = 2.0


def plan_checkpointing(
    model: nn.Module,
    input_shape: Sequence[int],
    budget: object,
    *,
    optimizer: object = None,
    holds_gradients: bool = False,
    precision: Precision = "float32",
    input_dtype: torch.dtype = torch.float32,
    loss: Callable[[Any], Tensor] = sum_of_outputs,
    stopwatch: Stopwatch | None = None,
    is_unit: IsUnit | None = None,
    compiled: bool = False,
    offload: bool = False,
) -> CheckpointingPlan:
    """Return the fastest plan of `model` within `budget`, for any network that takes one tensor.

    `input_shape` is that of the batch, `[B, 3, H, W]` for images. A budget in bytes (`6 * 2**30`, `"6 GiB"`) limits
    all that a step takes, a share (`0.5`) limits activations and temporaries to that share of their peak without
    checkpointing. In a budget in bytes counts the `optimizer`: `"adamw"`, an optimiser of torch for this model, or the
    bytes of its state per parameter as a number; by default none. With `holds_gradients`, gradients are there already
    when the batch begins, as between the batches of one accumulated step.
    Bytes are counted on fake tensors, and the chosen plan's step is counted as a whole. `stopwatch` says how long
    units take: by default one of each kind runs a few samples on the model's device. Units that `torch.compile` will
    have `compiled` are saved or computed again as a whole and each alone, because the compiler chooses what is saved of
    each, and puts its second run into its backward pass. Both take less than is counted here.
    With `offload`, what is saved of a unit may wait in host memory, and how fast bytes get there is measured, too.

    Raises `ValueError` for a model in which nothing that learns can be planned, and for a budget below the least
    possible, which the message names.
    """
    return Planner(
        model,
        input_shape,
        optimizer=optimizer,
        holds_gradients=holds_gradients,
        precision=precision,
        input_dtype=input_dtype,
        loss=loss,
        stopwatch=stopwatch,
        is_unit=is_unit,
        compiled=compiled,
        offload=offload,
    ).plan(budget)


class Planner:
    """All plans of one model for one step; see `plan_checkpointing` for the arguments."""

    @no_full_collections()
    def __init__(
        self,
        model: nn.Module,
        input_shape: Sequence[int],
        *,
        optimizer: object = None,
        holds_gradients: bool = False,
        precision: Precision = "float32",
        input_dtype: torch.dtype = torch.float32,
        loss: Callable[[Any], Tensor] = sum_of_outputs,
        stopwatch: Stopwatch | None = None,
        is_unit: IsUnit | None = None,
        compiled: bool = False,
        offload: bool = False,
    ) -> None:
        chosen = choose_optimizer(optimizer, model)
        step = TrainingStep(tuple(input_shape), loss, chosen, precision, input_dtype, holds_gradients)
        self._scope = Scope(step.input_shape, precision)
        self._optimizer = None if chosen is None else str(chosen)
        self._training = FakeTraining(model, step)
        self._structure = Structure.of(model)
        with self._training.copy.active() as fake, self._training.autocast():
            traced = trace_chains(fake, (step.make_inputs(next(fake.parameters()).device),), {}, is_unit)
        if not traced:
            raise ValueError(f"nothing in {type(model).__name__} that learns is called as a module, so none is planned")
        self._chains = names_of(traced)
        stopwatch = stopwatch or Measured()
        with self._training.copy.active():
            profile = _profile(traced, fake, model, Profiler(stopwatch, self._training.autocast, offload))
        if offload:
            profile = profile.with_transfer(stopwatch.time_transfer(next(model.parameters()).device))
        self._profile = profile.of_units_alone() if compiled else profile
        self._solutions = {
            everything: Solution(self._profile, partial(self._count_beyond, everything), count_gradients=everything)
            for everything in (False, True)
        }
        self._attached = Attached(fake)
        self._update = self._training.count_update()
        self._counted: dict[ChainPlan, MemoryReport] = {}
        self._baseline = self._count(ChainPlan.save_all(len(self._profile.units)))

    @no_full_collections()
    def plan(self, budget: object) -> CheckpointingPlan:
        """Return the fastest plan within a budget. Raises `ValueError` for one below the least possible."""
        wanted = parse_budget(budget)
        everything = wanted.num_bytes is not None
        if wanted.num_bytes is not None:
            limit = wanted.num_bytes - self.fixed_bytes
            update_fits = self._update.peak_bytes <= wanted.num_bytes
        else:
            limit = round((wanted.share or 0) * self._baseline.peak_activation_bytes)
            update_fits = True
        point = self._solutions[everything].fastest(limit) if update_fits else None
        if point is None:
            point = self._solutions[everything].lowest(math.inf)
            if not update_fits or self._count_beyond(everything, point.plan) > limit:
                raise ValueError(self._too_little(wanted, self._predict_counted(point)))
        return CheckpointingPlan(
            self._scope,
            self._structure,
            self._optimizer,
            wanted,
            self._chains,
            self._by_chain(point.plan),
            self._predict_counted(point),
            self.baseline,
            self.curve(),
        )

    @no_full_collections()
    def least(self, *, counts_everything: bool = True, most_time_ratio: float = MOST_TIME_RATIO) -> StepPrediction:
        """Return what the plan takes whose peak is the lowest: that of everything, or that of activations alone.

        Plans whose step takes more than `most_time_ratio` times as long as without checkpointing are left out. A budget
        that is lower still has one of them.
        """
        most_seconds = (most_time_ratio - 1) * self._profile.seconds
        return self._predict_counted(self._solutions[counts_everything].lowest(most_seconds))

    def curve(self) -> tuple[StepPrediction, ...]:
        """Memory against time, from the least memory to no checkpointing, as solved."""
        costs = (point.cost for point in self._solutions[True].frontier)
        return tuple(
            StepPrediction(cost.total_bytes + self.fixed_bytes, cost.activation_bytes, self._time_ratio(cost))
            for cost in costs
        )

    def solved(self, plan: CheckpointingPlan) -> PlanCost:
        """Return what the dynamic program has for a plan of this planner, from units counted alone."""
        return Simulator(self._profile).cost(_joined(plan.plans))

    def time_ratio(self, plan: CheckpointingPlan, samples: int) -> float:
        """Return the time of a step of `samples` under a plan of this planner, over that without checkpointing.

        For fewer samples than planned for it is higher: some of what checkpointing takes is the same for any number.
        """
        fixed_seconds = Simulator(self._profile).fixed_seconds(_joined(plan.plans).steps)
        more = (self._scope.input_shape[0] / samples - 1) * fixed_seconds
        return self._time_ratio(self.solved(plan)) + more / self._profile.seconds

    @property
    def baseline(self) -> StepPrediction:
        """Return what the step takes without checkpointing."""
        return StepPrediction(self._baseline.peak_bytes, self._baseline.peak_activation_bytes, 1.0)

    @property
    def fixed_bytes(self) -> int:
        """Return what is there all the time, whatever the plan: parameters, optimiser state, inputs."""
        at_peak = self._baseline.at_peak
        return at_peak[Kind.PARAMETERS] + at_peak[Kind.OPTIMIZER_STATE] + at_peak[Kind.INPUTS]

    def _count_beyond(self, everything: bool, plan: ChainPlan) -> int:
        """Return what a solution is about: the peak of the passes, besides what is there all the time."""
        passes = self._count_passes(plan)
        return passes.peak_bytes - self.fixed_bytes if everything else passes.peak_activation_bytes

    def _predict_counted(self, point: FrontierPoint) -> StepPrediction:
        report = self._count(point.plan)
        return StepPrediction(report.peak_bytes, report.peak_activation_bytes, self._time_ratio(point.cost))

    def _count(self, plan: ChainPlan) -> MemoryReport:
        """Return the whole step under a plan.

        A share is one of the activations. What the optimizer holds for a moment is no part of them.
        """
        passes = self._count_passes(plan)
        return replace(passes.larger(self._update), peak_activation_bytes=passes.peak_activation_bytes)

    def _count_passes(self, plan: ChainPlan) -> MemoryReport:
        if plan not in self._counted:
            self._attached.follow(self._chains, self._by_chain(plan))
            self._counted[plan] = self._training.count_passes()
        return self._counted[plan]

    def _by_chain(self, plan: ChainPlan) -> tuple[ChainPlan, ...]:
        """Return the steps of each chain. No range crosses from one into the next."""
        plans: list[ChainPlan] = []
        start = 0
        for chain in self._chains:
            steps = [step for step in plan.steps if start <= next(units_of([step])) < start + len(chain)]
            plans.append(ChainPlan(shifted(steps, -start)))
            start += len(chain)
        return tuple(plans)

    def _time_ratio(self, cost: PlanCost) -> float:
        return 1 + cost.replay_seconds / self._profile.seconds

    def _too_little(self, budget: Budget, least: StepPrediction) -> str:
        if budget.share is not None:
            baseline_bytes = self._baseline.peak_activation_bytes
            share = least.activation_bytes / baseline_bytes
            what = f"{share:.3f} of the peak without checkpointing, {format_bytes(baseline_bytes)}"
        else:
            outside = format_bytes(self.fixed_bytes)
            what = f"{format_bytes(least.peak_bytes)}, {outside} of it for parameters and the like"
        return (
            f"a budget of {budget} is too little for inputs {list(self._scope.input_shape)} in "
            f"{self._scope.precision}: the least is {what}; "
            "a smaller batch, smaller images or bf16 would lower it"
        )


def _joined(plans: Sequence[ChainPlan]) -> ChainPlan:
    """Return the plan of chains in a row."""
    steps: list[Step] = []
    for plan in plans:
        steps += shifted(plan.steps, len(list(units_of(steps))))
    return ChainPlan(tuple(steps))


def _profile(traced: Sequence[TracedChain], fake: nn.Module, real: nn.Module, profiler: Profiler) -> ChainProfile:
    """Return the profile of all chains of a network, of which `fake` is a copy on fake tensors."""
    units: list[UnitProfile] = []
    starts: list[int] = []
    for number, chain in enumerate(traced):
        if units:  # the input of a chain may be new
            last_bytes = units[-1].output_bytes + glue_bytes(traced[number - 1], chain)
            units[-1] = replace(units[-1], output_bytes=last_bytes)
        starts.append(len(units))
        twins = [[bind(unit, network) for unit in chain] for network in (fake, real)]
        units += profiler.profile_chain(twins[0], twins[1], [input_of(unit) for unit in chain])
    return ChainProfile(tuple(units), tuple(starts))
