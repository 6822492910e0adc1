"""A checkpointing plan for a whole model: what each of its chains saves, and what that is predicted to take."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import nn

from aerofuse.checkpointing.budget import Budget, format_bytes
from aerofuse.checkpointing.chain import Unit
from aerofuse.checkpointing.policy import CarriesPolicy, Policy, ReadyPlan, Scope, Structure
from aerofuse.checkpointing.steps import ChainPlan, Recompute, SaveAll, SaveSome, Step, from_json, to_json, units_of


@runtime_checkable
class Plannable(Protocol):
    """A module that publishes itself as a chain of units, and runs it under its policy."""

    checkpointing: Policy | None

    def chain(self) -> tuple[Unit, ...]:
        """Return its units in order."""


def plannable_parts(model: nn.Module) -> dict[str, Plannable]:
    """Return the parts of a model that learn and can follow a plan, by their names, in the order of registration."""
    return {
        name: module
        for name, module in model.named_modules()
        if any(parameter.requires_grad for parameter in module.parameters()) and isinstance(module, Plannable)
    }


# Of a plan's file. Older ones lack the structure of the network: nothing tells which they are for.
_FILE_FORMAT = 2


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

    `scope` is that of the model's inputs. `units` names the units of each chain, `parts` has the plan of each.
    `predicted` is counted for this very plan, `baseline` is the same step without checkpointing. `curve` is what the
    plan was chosen from: memory against time, from the least memory to no checkpointing.
    """

    scope: Scope
    optimizer: str | None
    budget: Budget
    units: Mapping[str, tuple[str, ...]]
    parts: Mapping[str, ReadyPlan]
    predicted: StepPrediction
    baseline: StepPrediction
    curve: tuple[StepPrediction, ...]

    @property
    def saves_everything(self) -> bool:
        """Return whether the budget allows to do without checkpointing."""
        return all(isinstance(step, SaveAll) for part in self.parts.values() for step in part.plan.steps)

    def apply(self, model: nn.Module) -> None:
        """Make the plan the policy of each part of `model` that learns. It replaces a policy of the whole model.

        The plan may have parts that are frozen here. Raises `ValueError` where it lacks one, or where a part has
        other units, other shapes or types of parameters, or where more of it learns.
        """
        found = plannable_parts(model)
        if not found or not found.keys() <= self.units.keys():
            raise ValueError(f"the plan is for the parts {_names(self.units)}, this model has {_names(found)}")
        for name, part in found.items():
            self._check_units(name, tuple(unit.name for unit in part.chain()))
            if (structure := self.parts[name].structure) is not None and isinstance(part, nn.Module):
                structure.check(Structure.of(part))
        if isinstance(model, CarriesPolicy):
            model.checkpointing = None
        for name, part in found.items():
            part.checkpointing = self.parts[name]

    def _check_units(self, part: str, units: tuple[str, ...]) -> None:
        planned = self.units[part]
        if units == planned:
            return
        other = next((f"{one} is {two}" for one, two in zip(planned, units, strict=False) if one != two), None)
        detail = other or f"{len(planned)} units are {len(units)}"
        raise ValueError(f"the plan is for another structure: of {part or 'the backbone'}, {detail} here")

    def save(self, path: Path) -> None:
        """Write the plan as JSON."""
        content = {"format": _FILE_FORMAT, **asdict(self)}
        for name, part in self.parts.items():
            content["parts"][name]["plan"] = to_json(part.plan.steps)
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> CheckpointingPlan:
        """Read what `save` wrote. Raises `FileNotFoundError`, or `ValueError` for any other file."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if "parts" in content and content.get("format") != _FILE_FORMAT:
                raise ValueError(
                    f"{path} is a plan of file format {content.get('format', 1)}, and this version of aerofuse reads "
                    f"{_FILE_FORMAT}; plan again and save that"
                )
            return cls(
                _scope(content["scope"]),
                content["optimizer"],
                Budget(**content["budget"]),
                {name: tuple(units) for name, units in content["units"].items()},
                {
                    name: ReadyPlan(
                        ChainPlan(from_json(part["plan"])), _scope(part["scope"]), Structure(**part["structure"])
                    )
                    for name, part in content["parts"].items()
                },
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
        for name, part in self.parts.items():
            width = max(map(len, self.units[name]))
            lines += ["", *([name] if name else []), *_lines(part.plan.steps, self.units[name], width, depth=0)]
        return "\n".join(lines)


def _scope(content: Mapping[str, Any]) -> Scope:
    return Scope(tuple(content["input_shape"]), content["precision"])


def _names(parts: Mapping[str, object]) -> str:
    return ", ".join(name or "(the backbone itself)" for name in parts) or "none"


def _lines(steps: Sequence[Step], units: Sequence[str], width: int, depth: int) -> Iterator[str]:
    for step in steps:
        if isinstance(step, Recompute):
            yield "  " * depth + "recompute:"
            yield from _lines(step.steps, units, width, depth + 1)
        else:
            for index in units_of([step]):
                linked = ", linked" if index > step.unit else ""
                yield "  " * depth + f"{units[index]:{width}}  {_what_is_saved(step)}{linked}"


def _what_is_saved(step: SaveAll | SaveSome) -> str:
    if isinstance(step, SaveAll):
        return "save all"
    if step.save is None:
        return "save what is expensive"
    saved = f"save {', '.join(step.save)}" if step.save else "save the input"
    return f"{saved}, no cache" if step.no_cache else saved
