"""A plan for a whole model, with what it is for and what it is predicted to take."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import nn

from aerofuse.checkpointing.budget import Budget, format_bytes
from aerofuse.checkpointing.chain import Unit
from aerofuse.checkpointing.plan import Keep, Plan, Policy, Recompute, Step, from_json, to_json, units_of


@dataclass(frozen=True)
class Scope:
    """The inputs that a plan is for: its peak holds for batches of at most this size."""

    input_shape: tuple[int, ...]
    precision: str

    def allows(self, input_shape: Sequence[int], precision: str) -> bool:
        """Whether `check` would pass."""
        try:
            self.check(input_shape, precision)
        except ValueError:
            return False
        return True

    def check(self, input_shape: Sequence[int], precision: str) -> None:
        """Raises `ValueError` for a larger batch, images of another size, or another precision."""
        if tuple(input_shape[1:]) != self.input_shape[1:]:
            raise ValueError(f"the plan is for inputs {list(self.input_shape)}, not {list(input_shape)}; plan again")
        if input_shape[0] > self.input_shape[0]:
            raise ValueError(
                f"the plan is for batches of up to {self.input_shape[0]}, not {input_shape[0]}; plan again"
            )
        if precision != self.precision:
            raise ValueError(f"the plan is for {self.precision}, not {precision}; plan again")


@dataclass(frozen=True)
class Segments:
    """Ranges of a chain that hold about as many bytes, all but the last computed again."""

    count: int


@dataclass(frozen=True)
class Planned:
    """One plan for every step that `scope` allows."""

    plan: Plan
    scope: Scope


# What a chain is told to keep; `None` is everything. A budget is planned for when the first batch is seen.
Treatment = Policy | Segments | Budget | Planned | None


@runtime_checkable
class Plannable(Protocol):
    """A module that publishes itself as a chain of units, and keeps what its treatment says."""

    treatment: Treatment

    def chain(self) -> tuple[Unit, ...]:
        """Its units in order."""


def plannable_parts(model: nn.Module) -> dict[str, Plannable]:
    """The parts of a model that learn and can follow a plan, by their names, in the order of registration."""
    return {
        name: module
        for name, module in model.named_modules()
        if any(parameter.requires_grad for parameter in module.parameters()) and isinstance(module, Plannable)
    }


@dataclass(frozen=True)
class Prediction:
    """What a training step will take.

    `peak_bytes` is the peak of everything, `activation_bytes` that of activations and temporaries; `time_ratio` the
    time of the step over that of the same without checkpointing, everything outside of the chains taken to be free.
    """

    peak_bytes: int
    activation_bytes: int
    time_ratio: float


@dataclass(frozen=True)
class CheckpointingPlan:
    """What every chain of a model keeps, and what that is predicted to take. `apply` switches it on.

    `scope` is that of the model's inputs. `units` names the units of each chain, `parts` says what each keeps.
    `predicted` is counted for this very plan; `curve` is what it was chosen from, as solved.
    """

    scope: Scope
    optimizer: str | None
    budget: Budget
    units: Mapping[str, tuple[str, ...]]
    parts: Mapping[str, Planned]
    predicted: Prediction
    unchecked: Prediction
    curve: tuple[Prediction, ...]

    def frontier(self) -> tuple[Prediction, ...]:
        """The memory-time curve, from the least memory to no checkpointing."""
        return self.curve

    @property
    def keeps_everything(self) -> bool:
        """Whether the budget allows to do without checkpointing."""
        return all(isinstance(step, Keep) for part in self.parts.values() for step in part.plan.steps)

    def apply(self, model: nn.Module) -> None:
        """Switch the plan on. Raises `ValueError` where the model has other chains, saying which."""
        found = plannable_parts(model)
        if list(found) != list(self.units):
            raise ValueError(f"the plan is for the parts {_names(self.units)}, this model has {_names(found)}")
        for name, part in found.items():
            units = tuple(unit.name for unit in part.chain())
            if units != self.units[name]:
                different = next(
                    (pair for pair in zip(self.units[name], units, strict=False) if pair[0] != pair[1]), None
                )
                detail = (
                    f"{different[0]} is {different[1]}"
                    if different
                    else f"{len(self.units[name])} units are {len(units)}"
                )
                raise ValueError(f"the plan is for another structure: of {name or 'the backbone'}, {detail} here")
        for name, part in found.items():
            part.treatment = self.parts[name]

    def save(self, path: Path) -> None:
        """Write the plan as JSON."""
        content = asdict(self)
        for name, part in self.parts.items():
            content["parts"][name]["plan"] = to_json(part.plan.steps)
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> CheckpointingPlan:
        """Read what `save` wrote. Raises `ValueError` for any other file."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                _scope(content["scope"]),
                content["optimizer"],
                Budget(**content["budget"]),
                {name: tuple(units) for name, units in content["units"].items()},
                {
                    name: Planned(Plan(from_json(part["plan"])), _scope(part["scope"]))
                    for name, part in content["parts"].items()
                },
                Prediction(**content["predicted"]),
                Prediction(**content["unchecked"]),
                tuple(Prediction(**point) for point in content["curve"]),
            )
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no plan that CheckpointingPlan.save wrote: {error!r}") from None

    def summary(self) -> str:
        """The plan in a sentence."""
        share = self.predicted.activation_bytes / self.unchecked.activation_bytes
        what = "nothing is checkpointed" if self.keeps_everything else f"time x {self.predicted.time_ratio:.3f}"
        return (
            f"within {self.budget}: peak {format_bytes(self.predicted.peak_bytes)} instead of "
            f"{format_bytes(self.unchecked.peak_bytes)} (activations {share:.1%}), {what}"
        )

    def __str__(self) -> str:
        """The plan as a table: a line per unit, ranges that are computed again indented."""
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
            yield "  " * depth + "compute again:"
            yield from _lines(step.steps, units, width, depth + 1)
        else:
            for index in units_of([step]):
                linked = ", linked" if index > step.unit else ""
                yield "  " * depth + f"{units[index]:{width}}  {_what_is_kept(step)}{linked}"


def _what_is_kept(step: Step) -> str:
    if isinstance(step, Keep):
        return "keep all"
    assert not isinstance(step, Recompute)
    if step.keep is None:
        return "keep what is dear"
    kept = f"keep {', '.join(step.keep)}" if step.keep else "keep the input"
    return f"{kept}, sparing" if step.sparing else kept
