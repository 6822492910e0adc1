"""Running a chain under a plan."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from aerofuse.checkpointing.chain import Chain, modules_of, run_units
from aerofuse.checkpointing.plan import Keep, Plan, Recompute, Step, units_of
from aerofuse.checkpointing.recompute import run_recomputed
from aerofuse.checkpointing.selective import run_thinned


def run_planned(chain: Chain, plan: Plan, inputs: Tensor) -> Tensor:
    """The output of `chain`, the same bits as without a plan, with what the plan says kept for the backward pass.

    Raises `ValueError` where the plan is for another number of units.
    """
    if plan.num_units != len(chain):
        raise ValueError(f"a plan for {plan.num_units} units cannot be followed by a chain of {len(chain)}")
    return _run_steps(chain, plan.steps, inputs)


def _run_steps(chain: Chain, steps: Sequence[Step], inputs: Tensor) -> Tensor:
    for step in steps:
        if isinstance(step, Recompute):
            units = [chain[index] for index in units_of(step.steps)]
            inputs = run_recomputed(
                partial(run_units, units),
                partial(_run_steps, chain, step.steps),
                partial(modules_of, units),
                inputs,
            )
        elif isinstance(step, Keep):
            inputs = chain[step.unit].run(inputs)
        else:
            first, *others = (chain[index].run for index in units_of([step]))
            inputs = run_thinned(first, inputs, step.keep, step.sparing, linked=others)
    return inputs
