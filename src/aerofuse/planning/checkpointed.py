"""Modules that carry a checkpointing policy: a network that runs as a chain of units, or a model that has such ones."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Hashable, Iterable
from typing import Self

import torch
from torch import Tensor, nn

from aerofuse.checkpointing.budget import Budget
from aerofuse.checkpointing.chain import Chain, Unit, modules_of, run_planned, run_units
from aerofuse.checkpointing.plan import CheckpointingPlan, plannable_parts
from aerofuse.checkpointing.policy import Policy, ReadyPlan, RecomputeAll, Segments, Selective, Structure, choose_policy
from aerofuse.checkpointing.segments import check_segments, plan_segments, saved_bytes
from aerofuse.checkpointing.steps import ChainPlan
from aerofuse.memory.optimizers import OptimizerChoice, choose_optimizer
from aerofuse.memory.step import Precision
from aerofuse.memory.torch_private import in_function_transform, is_compiled, not_compiled
from aerofuse.planning.planner import plan_checkpointing

logger = logging.getLogger(__name__)


class Checkpointed(nn.Module):
    """A module that carries a policy as `checkpointing`; `None` saves everything. It is no part of the `state_dict`.

    The policy reaches every chain of units that the module has. A budget is one for all of them: it is planned for
    when the first batch is seen, and again for a larger one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.checkpointing: Policy | None = None
        # Its state, and gradients held between steps, count in a budget of bytes.
        self._optimizer: OptimizerChoice = "adamw"
        self._holds_gradients = False
        # By all that a plan depends on but the number of samples: the plan for the largest batch so far.
        self._plans: dict[Hashable, CheckpointingPlan] = {}

    def chains(self) -> list[CheckpointedChain]:
        """Return the chains, also those that do not learn: they save nothing anyway."""
        return [module for module in self.modules() if isinstance(module, CheckpointedChain)]

    def enable_gradient_checkpointing(
        self,
        segments: int | None = None,
        *,
        policy: Policy | CheckpointingPlan | str | None = None,
        budget: object = None,
        optimizer: object = "adamw",
        holds_gradients: bool = False,
    ) -> Self:
        """Trade time for memory in training; may be called again to choose another policy.

        `segments`: cut each chain into that many ranges that save about as many bytes, and compute all but the last
        again in the backward pass. `policy`: the name of one that has no settings, `recompute_all` (also the default
        where nothing is given; it saves the least) or `selective`; or a policy, or a plan that `plan_checkpointing`
        made. `budget`: the fastest plan within so much memory, made when the first batch is seen: bytes (`"6 GiB"`)
        for all that a step takes, or a share (`0.5`) of the activations without checkpointing.

        A budget in bytes counts the state and the step of an `optimizer`, by default those of AdamW: 8 bytes per
        parameter, and temporaries. Others: an optimiser of torch for this model, the bytes of its state per parameter
        as a number, or `None` where all of that is elsewhere. With `holds_gradients`, gradients are there already when
        a batch begins, as between the batches of one accumulated step.

        Raises `ValueError` for segments that a chain does not have, an unknown policy, a budget that is none, more
        than one of them, a plan of another model, or a model without a backbone of ours. The first step raises one
        for a budget below the least possible.
        """
        chains = self.chains()
        if not chains:
            raise ValueError("no part of this model is a backbone made by create_backbone, so none can be checkpointed")
        chosen: Policy | CheckpointingPlan = choose_policy(segments, policy, budget)
        if isinstance(chosen, CheckpointingPlan):
            chosen.apply(self)
            return self
        if isinstance(chosen, ReadyPlan) and chains != [self]:
            raise ValueError("a ReadyPlan is for one backbone; give the CheckpointingPlan of the whole model")
        if isinstance(chosen, Segments):
            for chain in chains:
                check_segments(chosen.count, len(chain.chain()))
        settings = choose_optimizer(optimizer, self), holds_gradients
        if settings != (self._optimizer, self._holds_gradients):
            self._plans.clear()
        self._optimizer, self._holds_gradients = settings
        for chain in chains:
            chain.checkpointing = None if isinstance(chosen, Budget) else chosen
        self.checkpointing = chosen
        return self

    def disable_gradient_checkpointing(self) -> Self:
        """Save everything again."""
        for module in self._carriers():
            module.checkpointing = None
        return self

    def is_gradient_checkpointing_enabled(self) -> bool:
        """Return whether a training step may compute anything again."""
        return any(module.checkpointing is not None for module in self._carriers())

    def follow_budget(self, inputs: Tensor) -> None:
        """Give each chain its part of the plan for these inputs, where a budget is the policy of the whole model.

        Raises `ValueError` for a budget below the least possible.
        """
        if isinstance(self.checkpointing, Budget) and self._recomputes:
            if torch.compiler.is_compiling():
                _refuse_compilation()
            _check_surroundings(self.modules(), inputs)
            policies = self._plan_within(self.checkpointing, inputs).parts
            for name, part in plannable_parts(self).items():
                part.checkpointing = policies[name]

    def _carriers(self) -> list[Checkpointed]:
        return [self, *self.chains()]

    @property
    def _recomputes(self) -> bool:
        return self.checkpointing is not None and self.training and torch.is_grad_enabled()

    def _plan_within(self, budget: Budget, inputs: Tensor) -> CheckpointingPlan:
        precision = _precision(inputs)
        key = (budget, precision, self._kind_of(inputs))
        plan = self._plans.get(key)
        if plan is None or plan.scope.input_shape[0] < len(inputs):
            plan = plan_checkpointing(
                self,
                inputs.shape,
                budget,
                optimizer=self._optimizer,
                holds_gradients=self._holds_gradients,
                precision=precision,
                input_dtype=inputs.dtype,
            )
            self._plans[key] = plan
            logger.info("gradient checkpointing %s", plan.summary())
        return plan

    def _kind_of(self, inputs: Tensor) -> Hashable:
        """Return what the bytes of a sample depend on: shape, type and device, of it and of parameters; what learns."""
        parameters = tuple((one.shape, one.dtype, one.device, one.requires_grad) for one in self.parameters())
        return tuple(inputs.shape[1:]), inputs.dtype, inputs.device, inputs.requires_grad, parameters


class CheckpointedChain(Checkpointed):
    """A network that runs as a chain of units."""

    def __init__(self) -> None:
        super().__init__()
        self._segments: dict[Hashable, ChainPlan] = {}
        self._structure: tuple[Hashable, Structure] | None = None

    @abstractmethod
    def chain(self) -> tuple[Unit, ...]:
        """Return the units in order; their composition is the forward pass."""

    def run_chain(self, inputs: Tensor) -> Tensor:
        """Return the output of the chain; in training mode with gradients on, save what the policy says.

        Raises `ValueError` for a budget below the least possible, and for inputs that a ready plan is not for, or that
        were made in inference mode. Raises `RuntimeError` under `torch.compile` and transforms of `torch.func`.
        """
        if not self._recomputes:
            return run_units(self.chain(), inputs)
        if torch.compiler.is_compiling():
            _refuse_compilation()
        chain, modules = self.chain(), list(self.modules())
        _check_surroundings(modules, inputs)
        used = set(modules_of(chain))
        others = [module for module in modules if module not in used]
        return run_planned(chain, self._chain_plan(chain, inputs), inputs, others)

    def _structure_of(self, kind: Hashable) -> Structure:
        """Return the structure now; `kind` changes whenever it does."""
        if self._structure is None or self._structure[0] != kind:
            self._structure = kind, Structure.of(self)
        return self._structure[1]

    def _chain_plan(self, chain: Chain, inputs: Tensor) -> ChainPlan:
        match self.checkpointing:
            case RecomputeAll():
                return ChainPlan.recompute_all(len(chain))
            case Selective():
                return ChainPlan.selective(len(chain))
            case Segments(count):
                key = (count, len(chain), self._kind_of(inputs))
                if key not in self._segments:
                    # Hooks may have joined units since the number was given.
                    self._segments[key] = plan_segments(self._sizes(chain, inputs), min(count, len(chain)))
                return self._segments[key]
            case Budget() as budget:
                return self._plan_within(budget, inputs).parts[""].plan
            case ReadyPlan(plan, scope, structure):
                scope.check(inputs.shape, _precision(inputs))
                if structure is not None:
                    structure.check(self._structure_of(self._kind_of(inputs)))
                return plan
        raise AssertionError(f"{self.checkpointing!r} is no policy")

    def _sizes(self, chain: Chain, inputs: Tensor) -> list[int]:
        try:
            # What a unit saves beside another does not depend on the batch.
            return saved_bytes(self, lambda network: network.chain(), inputs[:2])
        except ValueError as error:
            logger.warning("segments have equal numbers of units, for what units save is unknown: %s", error)
            return [1] * len(chain)


@not_compiled
def _refuse_compilation() -> None:
    raise RuntimeError(
        "gradient checkpointing and torch.compile do not work together yet: disable_gradient_checkpointing() first, or "
        "do not compile this backbone and its parts"
    )


def _check_surroundings(modules: Iterable[nn.Module], inputs: Tensor) -> None:
    if any(map(is_compiled, modules)):
        _refuse_compilation()
    if in_function_transform():
        raise RuntimeError(
            "gradient checkpointing does not work under transforms of torch.func, such as grad, vmap and jvp: "
            "disable_gradient_checkpointing() first, or use torch.autograd.grad"
        )
    if inputs.is_inference():
        raise ValueError(
            "the inputs were made in inference_mode, so that nothing can be saved of them for the backward pass: "
            "give inputs.clone(), made outside of it"
        )


def _precision(inputs: Tensor) -> Precision:
    return "bf16" if torch.is_autocast_enabled(inputs.device.type) else "float32"
