"""The switch of gradient checkpointing, for any network; and modules that have it as methods."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from functools import partial
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn

from aerofuse.checkpointing.attached import attached_to, kind_of
from aerofuse.checkpointing.budget import Budget
from aerofuse.checkpointing.choosing import ByPolicy, attach, switch
from aerofuse.checkpointing.find_units import IsUnit
from aerofuse.checkpointing.plan import CheckpointingPlan, Policy
from aerofuse.checkpointing.policy import Segments, choose_policy
from aerofuse.checkpointing.segments import check_segments, check_segments_of_chains
from aerofuse.checkpointing.steps import ChainPlan
from aerofuse.checkpointing.unit_calls import FoundChain
from aerofuse.checkpointing.verification import verify_checkpointing
from aerofuse.common.threads import in_new_thread
from aerofuse.memory.optimizers import choose_optimizer
from aerofuse.planning.planner import plan_checkpointing

logger = logging.getLogger(__name__)

Network = TypeVar("Network", bound=nn.Module)


def enable_gradient_checkpointing(
    network: Network,
    segments: int | None = None,
    *,
    policy: Policy | str | None = None,
    budget: object = None,
    optimizer: object = "adamw",
    holds_gradients: bool = False,
    is_unit: IsUnit | None = None,
    offload: bool = False,
    example_inputs: tuple[Any, ...] | None = None,
    verify: bool = False,
) -> Network:
    """Trade time for memory in training; may be called again to choose another policy. Returns the network.

    `segments`: cut each chain of units into that many ranges that save about as many bytes, and compute all but the
    last again in the backward pass. `policy`: the name of one that has no settings, `recompute_all` (also the default
    where nothing is given), `selective` or `offload`; or a policy, or a plan that `plan_checkpointing` made. `budget`:
    the fastest plan within so much memory, made when the first batch is seen: bytes (`"6 GiB"`) for all that a step
    takes, or a share (`0.5`) of the activations without checkpointing. With `offload`, what such a plan saves of a unit
    may wait in host memory.

    Units are found when the first batch is seen; with `example_inputs`, the positional arguments of a forward pass,
    they are found now, for a network of which a part is called before the whole. `is_unit` may say of a module, by its
    name, that it is one unit whatever it holds. With `verify`, a training step on `example_inputs` is run with
    checkpointing and without, and any bit that differs is an error.

    A budget in bytes counts the state and the step of an `optimizer`, by default those of AdamW: 8 bytes per
    parameter, and temporaries. Others: an optimiser of torch for this model, the bytes of its state per parameter
    as a number, or `None` where all of that is elsewhere. With `holds_gradients`, gradients are there already when
    a batch begins, as between the batches of one accumulated step.

    Raises `ValueError` for an unknown policy, a budget that is none, more than one of them, `offload` without a
    budget, or a plan of another model; with `example_inputs` also for more segments than the longest chain has units.
    A shorter chain is cut between all of its units. The first step raises one for a budget below the least possible.
    Raises `RuntimeError` with the names of what differs where `verify` finds something; checkpointing is then off.
    """
    if verify and example_inputs is None:
        raise ValueError("verify needs example_inputs, the positional arguments of a forward pass")
    chosen: Policy = choose_policy(segments, policy, budget)
    if offload and not isinstance(chosen, Budget):
        raise ValueError("offload=True goes with a budget; policy='offload' lets everything wait in host memory")
    if isinstance(chosen, CheckpointingPlan):
        chosen.apply(network)
    elif isinstance(chosen, Budget):
        settings = {"holds_gradients": holds_gradients, "is_unit": is_unit, "offload": offload}
        switch(network, WithinBudget(chosen, optimizer=choose_optimizer(optimizer, network), **settings))
    else:
        if isinstance(chosen, Segments):
            check_segments(chosen.count)
        switch(network, ByPolicy(chosen, is_unit))
    if example_inputs is not None:
        attach(network).prepare(example_inputs)
        if isinstance(chosen, Segments):
            check_segments_of_chains(chosen.count, attach(network).chains)
        if verify and (names := verify_checkpointing(network, *example_inputs)):
            disable_gradient_checkpointing(network)
            raise RuntimeError(
                f"with gradient checkpointing {len(names)} tensors of a training step differ, first of all {names[0]}: "
                "its forward pass has state outside of buffers and random generators of its modules, as it seems"
            )
    return network


def disable_gradient_checkpointing(network: Network) -> Network:
    """Save everything again. Returns the network."""
    for attached in attached_to(network):
        attached.choose_by(None)
    return network


def is_gradient_checkpointing_enabled(network: nn.Module) -> bool:
    """Return whether a training step may compute anything again."""
    return any(attached.chooser is not None for attached in attached_to(network))


class WithinBudget:
    """Plans for a budget when a batch is seen, and again for a larger one; see `Chooser`.

    `settings` are those of `plan_checkpointing` that do not depend on the batch.
    """

    def __init__(self, budget: Budget, **settings: Any) -> None:
        self.policy, self._settings = budget, settings
        # By all that a plan depends on but the number of samples: the plan for the largest batch so far.
        self._plans: dict[Hashable, CheckpointingPlan] = {}

    def choose(
        self, network: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, compiled: bool
    ) -> tuple[tuple[FoundChain, ...], tuple[ChainPlan, ...]]:
        """Return what the plan for these inputs has. Raises `ValueError` for a budget below the least possible."""
        inputs = self._only_input(network, args, kwargs)
        is_bf16 = torch.is_autocast_enabled(inputs.device.type)
        key = is_bf16, compiled, kind_of(network, args, kwargs)
        plan = self._plans.get(key)
        if plan is None or plan.scope.input_shape[0] < len(inputs):
            make = partial(
                plan_checkpointing,
                network,
                inputs.shape,
                self.policy,
                precision="bf16" if is_bf16 else "float32",
                input_dtype=inputs.dtype,
                compiled=compiled,
                **self._settings,
            )
            plan = self._plans[key] = in_new_thread(make)
            logger.info("gradient checkpointing %s", plan.summary())
        return plan.chains, plan.plans

    @staticmethod
    def _only_input(network: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        if len(args) == 1 and not kwargs and isinstance(args[0], Tensor):
            return args[0]
        raise ValueError(
            f"a budget is planned for a network that takes one tensor, and {type(network).__name__} was called with "
            f"{len(args)} arguments and {len(kwargs)} by name: choose another policy, or give the budget to the part "
            "that takes one tensor"
        )


class Checkpointed(nn.Module):
    """A module that has the switch as methods. It is no part of the `state_dict`."""

    @property
    def checkpointing(self) -> Policy | None:
        """Return the policy, `None` where everything is saved."""
        chooser = attach(self).chooser
        policy: Policy | None = None if chooser is None else chooser.policy
        return policy

    @checkpointing.setter
    def checkpointing(self, policy: Policy | None) -> None:
        if policy is None:
            self.disable_gradient_checkpointing()
        else:
            self.enable_gradient_checkpointing(policy=policy)

    def enable_gradient_checkpointing(self, segments: int | None = None, **settings: Any) -> Self:
        """Trade time for memory in training; see the function of that name."""
        return enable_gradient_checkpointing(self, segments, **settings)

    def disable_gradient_checkpointing(self) -> Self:
        """Save everything again."""
        return disable_gradient_checkpointing(self)

    def is_gradient_checkpointing_enabled(self) -> bool:
        """Return whether a training step may compute anything again."""
        return is_gradient_checkpointing_enabled(self)
