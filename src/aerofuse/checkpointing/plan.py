"""A checkpointing plan for a whole model: what each of its chains saves, and what that is predicted to take."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from aerofuse.checkpointing.attached import Chosen, kind_of
from aerofuse.checkpointing.budget import Budget, format_bytes
from aerofuse.checkpointing.choosing import switch
from aerofuse.checkpointing.policy import NamedPolicy, Scope, Structure
from aerofuse.checkpointing.steps import (
    ChainPlan,
    Offload,
    Recompute,
    SaveAll,
    SaveSome,
    Step,
    from_json,
    to_json,
    units_of,
)
from aerofuse.checkpointing.tensors import tensors_in
from aerofuse.checkpointing.unit_calls import FoundChain, FoundUnit, module_of

# Of a plan's file. Older ones are for chains that were written by hand.
_FILE_FORMAT = 3


@dataclass(frozen=True)
class StepPrediction:
    """What a training step will take.

    `peak_bytes` is the peak of everything, `activation_bytes` that of activations and temporaries; `time_ratio` the
    time of the step over that of the same without checkpointing, everything outside of the chains taken to be free.
    """

    peak_bytes: int
    activation_bytes: int
    time_ratio: float


@dataclass(frozen=True)
class CheckpointingPlan:
    """What every chain of a model saves, and what a step is then predicted to take. `apply` switches it on.

    `scope` is that of the model's inputs, `structure` that of the model. `chains` are the units of the network, in rows
    within which one hands a tensor to the next, and `plans` has the plan of each row. `predicted` is counted for this
    very plan, `baseline` is the same step without checkpointing. `curve` is what the plan was chosen from: memory
    against time, from the least memory to no checkpointing.
    """

    scope: Scope
    structure: Structure
    optimizer: str | None
    budget: Budget
    chains: tuple[FoundChain, ...]
    plans: tuple[ChainPlan, ...]
    predicted: StepPrediction
    baseline: StepPrediction
    curve: tuple[StepPrediction, ...]

    @property
    def saves_everything(self) -> bool:
        """Return whether the budget allows to do without checkpointing."""
        return all(isinstance(step, SaveAll) for plan in self.plans for step in plan.steps)

    def apply(self, network: nn.Module) -> None:
        """Let `network` follow the plan in training. It replaces the policies of the network and of its parts.

        Raises `ValueError` for a network of another structure, or of which more learns.
        """
        self._check(network)
        switch(network, _Following(self))

    def _check(self, network: nn.Module) -> None:
        names = {name for name, _ in network.named_modules()}
        planned = (module_of(call) for chain in self.chains for unit in chain for call in unit.calls)
        if (missing := next((name for name in planned if name not in names), None)) is not None:
            raise ValueError(f"the plan is for another network: this one has no module {missing}; plan again")
        self.structure.check(Structure.of(network))

    def save(self, path: Path) -> None:
        """Write the plan as JSON."""
        content = {"format": _FILE_FORMAT, **asdict(self)}
        content["plans"] = [to_json(plan.steps) for plan in self.plans]
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> CheckpointingPlan:
        """Read what `save` wrote. Raises `FileNotFoundError`, or `ValueError` for any other file."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if "budget" in content and "predicted" in content and content.get("format") != _FILE_FORMAT:
                raise ValueError(
                    f"{path} is a plan of file format {content.get('format', 1)}, and this version of aerofuse reads "
                    f"{_FILE_FORMAT}; plan again and save that"
                )
            return cls(
                Scope(tuple(content["scope"]["input_shape"]), content["scope"]["precision"]),
                Structure(**content["structure"]),
                content["optimizer"],
                Budget(**content["budget"]),
                tuple(tuple(FoundUnit(tuple(unit["calls"])) for unit in chain) for chain in content["chains"]),
                tuple(ChainPlan(from_json(plan)) for plan in content["plans"]),
                StepPrediction(**content["predicted"]),
                StepPrediction(**content["baseline"]),
                tuple(StepPrediction(**point) for point in content["curve"]),
            )
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is no plan that CheckpointingPlan.save wrote, or one of an older version, which wrote "
                f"plans otherwise ({error!r}); plan again and save that"
            ) from None

    def summary(self) -> str:
        """Return the plan in a sentence."""
        share = self.predicted.activation_bytes / self.baseline.activation_bytes
        what = "nothing is checkpointed" if self.saves_everything else f"time x {self.predicted.time_ratio:.3f}"
        return (
            f"within {self.budget}: peak {format_bytes(self.predicted.peak_bytes)} instead of "
            f"{format_bytes(self.baseline.peak_bytes)} (activations {share:.1%}), {what}"
        )

    def __str__(self) -> str:
        """Return the plan as a table: a line per unit, ranges that are computed again indented."""
        shape = "x".join(map(str, self.scope.input_shape))
        lines = [self.summary(), f"inputs {shape}, {self.scope.precision}"]
        for chain, plan in zip(self.chains, self.plans, strict=True):
            names = [unit.name for unit in chain]
            lines += ["", *_lines(plan.steps, names, max(map(len, names)), depth=0)]
        return "\n".join(lines)


Policy = NamedPolicy | CheckpointingPlan


class _Following:
    """Follows a plan with inputs that it is for; see `Chooser`."""

    def __init__(self, plan: CheckpointingPlan) -> None:
        self.policy = plan
        self._checked: set[Hashable] = set()

    def choose(self, network: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, compiled: bool) -> Chosen:  # noqa: ARG002
        """Return what the plan has. Raises `ValueError` for other inputs, or a network that has changed."""
        inputs = tensors_in((args, kwargs))[0]
        precision = "bf16" if torch.is_autocast_enabled(inputs.device.type) else "float32"
        self.policy.scope.check(inputs.shape, precision)
        key = kind_of(network, args, kwargs)
        if key not in self._checked:
            self.policy._check(network)
            self._checked.add(key)
        return self.policy.chains, self.policy.plans


def _lines(steps: Sequence[Step], units: Sequence[str], width: int, depth: int) -> Iterator[str]:
    for step in steps:
        if isinstance(step, Recompute):
            yield "  " * depth + "recompute:"
            yield from _lines(step.steps, units, width, depth + 1)
        else:
            for index in units_of([step]):
                linked = ", linked" if index > step.unit else ""
                yield "  " * depth + f"{units[index]:{width}}  {_what_is_saved(step)}{linked}"


def _what_is_saved(step: SaveAll | Offload | SaveSome) -> str:
    if isinstance(step, SaveAll):
        return "save all"
    if isinstance(step, Offload):
        return "offload all"
    if step.save is None:
        return "save what is expensive"
    saved = f"save {', '.join(step.save)}" if step.save else "save the input"
    return f"{saved}, no cache" if step.no_cache else saved
