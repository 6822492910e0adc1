"""`auto`: the batch size and the plan that a device has room for, found by planning before training begins."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from aerofuse.checkpointing.budget import Budget, format_bytes, parse_budget
from aerofuse.checkpointing.plan import CheckpointingPlan
from aerofuse.common.hardware import device_name
from aerofuse.planning.estimates import LARGE_GPU
from aerofuse.planning.planner import MOST_TIME_RATIO
from aerofuse.training.params import AUTO, PhaseParams, TrainingParams
from aerofuse.training.step_memory import StepMemory, unless_out_of_memory

logger = logging.getLogger(__name__)

# How far below the largest batch that fits a planned one may be. Planning takes seconds, counting one.
_TOLERANCE = 0.02
# Images without gradients. The activations of more do not stay in the caches: 1.5 times as long for each image.
LARGEST_BATCH_SEEN_BY_CPU = 32
_MOST_ATTEMPTS = 4  # real steps; where the device has no room, the next one is for a tenth less


@dataclass(frozen=True)
class Fit:
    """How a stage trains in the memory that there is.

    `available_bytes` is what a step may take on the device, `predicted_peak_bytes` what it is predicted to take.
    `policy` says in words what is saved for the backward pass; `plan` is set where it was planned for this stage.
    """

    batch_size: int
    validation_batch_size: int
    predicted_peak_bytes: int
    available_bytes: int
    policy: str
    plan: CheckpointingPlan | None = None


def fit_training(
    step: StepMemory, num_images: int, phase: PhaseParams, params: TrainingParams, num_processes: int = 1
) -> Fit:
    """Choose the batch size and the checkpointing policy, give the model the policy, and predict a step's memory.

    Where neither the batch size nor the budget is `auto`, nothing is sought and no step is run. Otherwise a real
    step confirms what was found; it leaves the model and the random state as they were.

    Raises `ValueError` where nothing fits, naming the least that is needed and what would lower it, for a ready plan
    that is not for this stage's batch or model, and for `auto` with several processes, each of which would find its
    own.
    """
    fitting = _Fitting(step, num_images, phase, params)
    if not fitting.seeks:
        return fitting.as_told()
    if num_processes > 1:
        raise ValueError(
            f"{AUTO} is found for one process, and there are {num_processes}; train in one, read in the log what it "
            "finds, and give batch_size and gradient_checkpointing.budget as numbers"
        )
    return fitting.confirmed()


class _Fitting:
    """One stage: what is asked for, and what is found. Every limit is on all that a step takes."""

    def __init__(self, step: StepMemory, num_images: int, phase: PhaseParams, params: TrainingParams) -> None:
        self._step = step
        self._params = params
        self._asked = None if isinstance(phase.batch_size, str) else phase.batch_size
        self._most = min(params.largest_batch_size, num_images)
        if params.gradient_checkpointing.offload and step.device.type == "cpu":
            raise ValueError(
                "gradient_checkpointing.offload is true, but this is a CPU, whose memory is the host's: set it to false"
            )
        told = params.gradient_checkpointing.budget
        self._budget = Budget() if told in (None, AUTO) else parse_budget(told)
        self._plans = told is not None and step.can_checkpoint
        self._ready_plan = self._switch_on()
        self.seeks = self._asked is None or (told == AUTO and self._plans)
        self._available_bytes = step.available_bytes()

    def _switch_on(self) -> CheckpointingPlan | None:
        """Give the model the policy that is named, unless a budget is to be planned for; return a ready plan."""
        checkpointing, model = self._params.gradient_checkpointing, self._step.model
        if checkpointing.policy in ("recompute_all", "selective"):
            model.enable_gradient_checkpointing(policy=checkpointing.policy)
        elif checkpointing.segments is not None:
            model.enable_gradient_checkpointing(checkpointing.segments)
        elif checkpointing.plan is not None and self._step.can_checkpoint:
            plan = CheckpointingPlan.load(Path(checkpointing.plan))
            try:
                plan.scope.check(self._step.input_shape(self._asked or 1), self._step.precision)
                model.enable_gradient_checkpointing(policy=plan)
            except ValueError as error:
                raise ValueError(f"gradient_checkpointing.plan is {checkpointing.plan}: {error}") from None
            self._most = min(self._most, plan.scope.input_shape[0])
            return plan
        return None

    def as_told(self) -> Fit:
        """Return the batch and the budget that are asked for."""
        assert self._asked is not None
        fit = self._fit(self._asked, self._budget.num_bytes)
        if self._budget.num_bytes is not None and fit.predicted_peak_bytes > self._budget.num_bytes:
            raise ValueError(self._nothing_fits(self._asked, fit.predicted_peak_bytes, self._budget.num_bytes))
        return fit

    def confirmed(self) -> Fit:
        """Return the best within the device's memory, after a real step of it."""
        limit_bytes = min(self._available_bytes, self._budget.num_bytes or self._available_bytes)
        for _ in range(_MOST_ATTEMPTS):
            fit = unless_out_of_memory(partial(self._best, limit_bytes))
            report = fit and unless_out_of_memory(partial(self._step.run, fit.batch_size))
            if fit and report:
                measured, predicted = format_bytes(report.peak_bytes), format_bytes(fit.predicted_peak_bytes)
                logger.info("batch %d confirmed by a real step: %s, predicted %s", fit.batch_size, measured, predicted)
                return fit
            tried = f"a step of batch {fit.batch_size} ({fit.policy})" if fit else "the units to be timed"
            limit_bytes = round(0.9 * (min(limit_bytes, fit.predicted_peak_bytes) if fit else limit_bytes))
            logger.warning("no room for %s; trying again within %s", tried, format_bytes(limit_bytes))
        raise ValueError(
            f"{device_name(self._step.device)} has no room for what was planned, {_MOST_ATTEMPTS} times in turn, "
            f"though {format_bytes(self._available_bytes)} are free; something else takes memory there. Within "
            f"{format_bytes(limit_bytes)} it may fit: set that as gradient_checkpointing.budget, raise memory_reserve "
            "or give a batch_size"
        )

    def _best(self, limit_bytes: int) -> Fit:
        if self._asked is not None:
            try:
                return self._fit(self._asked, limit_bytes)
            except ValueError as error:
                device = device_name(self._step.device)
                raise ValueError(f"{device} has {format_bytes(limit_bytes)} for a training step; {error}") from None
        batch_size = self._largest_batch(limit_bytes)
        lower_by = _TOLERANCE
        while True:
            # Plans with real times may take a little more than those of the search.
            try:
                fit = self._fit(batch_size, limit_bytes)
                if fit.predicted_peak_bytes <= limit_bytes or batch_size == 1:
                    return fit
            except ValueError:
                if batch_size == 1:
                    raise
            batch_size = max(1, batch_size - max(1, round(lower_by * batch_size)))
            lower_by *= 2

    def _fit(self, batch_size: int, limit_bytes: int | None) -> Fit:
        """Plan one batch size, and switch the plan on."""
        predicted_peak_bytes, plan = self._plan(batch_size, limit_bytes)
        if self._plans:
            self._step.model.disable_gradient_checkpointing()
        if plan is not None:
            self._step.model.enable_gradient_checkpointing(policy=plan)
        validation_batch, policy = self._validation_batch(batch_size, limit_bytes), self._in_words(plan)
        return Fit(batch_size, validation_batch, predicted_peak_bytes, self._available_bytes, policy, plan)

    def _plan(self, batch_size: int, limit_bytes: int | None) -> tuple[int, CheckpointingPlan | None]:
        """Return the peak of a step, and the plan that it takes, if any."""
        if not self._plans:
            return self._step.count(batch_size), None
        budget = self._budget
        if budget.share is None:
            assert limit_bytes is not None
            baseline_bytes = self._step.count_baseline(batch_size)
            if baseline_bytes <= limit_bytes:
                return baseline_bytes, None
            budget = Budget(num_bytes=max(limit_bytes - self._step.waiting_bytes, 1))
        plan = self._step.planner(batch_size).plan(budget)
        return self._step.planned(batch_size, plan.predicted), plan

    def _largest_batch(self, limit_bytes: int) -> int:
        peak_of, tolerance = cache(self._step.count), 0.0
        if self._plans:
            if self._budget.share is None and self._step.count_baseline(self._most) <= limit_bytes:
                return self._most
            peak_of, tolerance = cache(self._planned_peak), _TOLERANCE
        found = largest_that_fits(peak_of, limit_bytes, self._most, self._step.fixed_bytes, tolerance)
        if found == 0:
            least_bytes = self._planned_peak(1, most_time_ratio=math.inf) if self._plans else peak_of(1)
            if least_bytes > limit_bytes:
                raise ValueError(self._nothing_fits(1, least_bytes, limit_bytes))
            return 1
        return found

    def _planned_peak(self, batch_size: int, most_time_ratio: float = MOST_TIME_RATIO) -> int:
        """Return the peak of the plan for the share that is asked for, else of the plan of the least memory."""
        # No unit is timed for real while a batch is sought: one of a batch that is too large might not fit. The plan of
        # the least memory hardly depends on times.
        planner = self._step.planner(batch_size, LARGE_GPU[self._step.precision])
        if self._budget.share is not None:
            return self._step.planned(batch_size, planner.plan(self._budget).predicted)
        return planner.least(most_time_ratio=most_time_ratio).peak_bytes + self._step.waiting_bytes

    def _validation_batch(self, batch_size: int, limit_bytes: int | None) -> int:
        """Four times the training batch, or less: for a CPU, or where that would take more than a training step may."""
        most = LARGEST_BATCH_SEEN_BY_CPU if self._step.device.type == "cpu" else 4 * batch_size
        sizes = [min(factor * batch_size, most) for factor in (4, 2, 1)]  # without gradients, more have room at once
        if not self.seeks or limit_bytes is None:
            return sizes[0]
        return next((size for size in sizes if self._step.count_evaluation(size) <= limit_bytes), sizes[-1])

    def _in_words(self, plan: CheckpointingPlan | None) -> str:
        checkpointing = self._params.gradient_checkpointing
        if checkpointing.policy == "none":
            return "no checkpointing"
        if not self._step.can_checkpoint:
            return "nothing is checkpointed, for no backbone learns"
        if plan := plan or self._ready_plan:
            return plan.summary()
        return {
            "budget": "nothing is checkpointed, for all fits",
            "segments": f"{checkpointing.segments} segments a backbone",
            "recompute_all": "every unit is computed again",
            "selective": "what is expensive to compute is saved",
        }[checkpointing.policy]

    def _nothing_fits(self, batch_size: int, least_bytes: int, limit_bytes: int) -> str:
        remedies = ["smaller images", "a larger budget" if self._budget.num_bytes else "a smaller memory_reserve"]
        if batch_size > 1:
            remedies.insert(0, "a smaller batch")
        if self._step.can_checkpoint and not self._plans:
            remedies.insert(0, "gradient_checkpointing: {policy: budget, budget: auto}")
        if self._params.mixed_precision == "no":
            remedies.insert(0, "mixed_precision: bf16")
        fixed = format_bytes(self._step.fixed_bytes)
        return (
            f"a batch of {batch_size} does not fit into {format_bytes(limit_bytes)} on "
            f"{device_name(self._step.device)}: the least is {format_bytes(least_bytes)}, "
            f"{fixed} of it for parameters and the like; {', '.join(remedies)} would help"
        )


def largest_that_fits(
    peak_of: Callable[[int], int], limit_bytes: int, most: int, fixed_bytes: int, tolerance: float
) -> int:
    """Return the largest batch up to `most` within the limit, or one less by a share of `tolerance`; or 0.

    Peaks are nearly affine in the batch, so that the straight line between one that fits and one that does not, the
    first of them the `fixed_bytes` of no image at all, leads there in a few evaluations of `peak_of`.
    """
    fits, fits_bytes, fails, fails_bytes = 0, fixed_bytes, most, peak_of(most)
    if fails_bytes <= limit_bytes:
        return most
    while fails - fits > max(1, int(tolerance * fits)):
        on_the_line = fits + (fails - fits) * (limit_bytes - fits_bytes) // (fails_bytes - fits_bytes)
        # A little below the line, so that both ends come nearer.
        aimed_at = on_the_line - int(tolerance / 2 * on_the_line)
        batch_size = min(max(aimed_at, fits + 1), fails - 1)
        peak_bytes = peak_of(batch_size)
        if peak_bytes <= limit_bytes:
            fits, fits_bytes = batch_size, peak_bytes
        else:
            fails, fails_bytes = batch_size, peak_bytes
    return fits
