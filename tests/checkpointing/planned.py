"""Running a chain of units under a plan, outside of a network."""

from __future__ import annotations

from torch import Tensor

from aerofuse.checkpointing.chain import Chain, run_steps
from aerofuse.checkpointing.steps import ChainPlan


def run_planned(chain: Chain, plan: ChainPlan, inputs: Tensor) -> Tensor:
    """Return the output of the chain; what the plan names is saved for the backward pass."""
    return run_steps(chain, (), plan.steps, inputs)
