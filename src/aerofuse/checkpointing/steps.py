"""What is saved of each unit of a chain for the backward pass, and which ranges of units are computed again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self


@dataclass(frozen=True)
class SaveAll:
    """A unit of which everything is saved, as without checkpointing."""

    unit: int


@dataclass(frozen=True)
class Offload:
    """A unit of which everything is saved in host memory: it leaves the device, and comes back in the backward pass."""

    unit: int


@dataclass(frozen=True)
class SaveSome:
    """A unit of which the results of some calls are saved; the rest is computed from them, tensor by tensor.

    `save` names the calls (`linear.0`, `conv2d.1`); without it, what is expensive is saved: the results of
    convolutions, matrix products and attention. With `no_cache`, a tensor that is computed on the way to another one
    is not cached for its own use, but computed once more.

    `count` consecutive units may be linked: treated alike, and only the input of the first is saved. Each other input
    is computed from it and from what the units between save of their residual branches: a few sums.
    """

    unit: int
    save: tuple[str, ...] | None = None
    no_cache: bool = False
    count: int = 1


@dataclass(frozen=True)
class Recompute:
    """Consecutive units of which only the input of the first is saved.

    When the backward pass reaches them they run again, this time as `steps` say; so ranges may be nested.
    """

    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        if any(isinstance(step, Offload) for step in self.steps):
            raise ValueError("a range that is computed again offloads nothing: its backward pass follows at once")


Step = SaveAll | Offload | SaveSome | Recompute


@dataclass(frozen=True)
class ChainPlan:
    """The steps of one chain. They name every unit once, in order; else `ValueError` is raised."""

    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        units = list(units_of(self.steps))
        if units != list(range(len(units))):
            raise ValueError(f"a plan names every unit once and in order, this one names {units}")

    @property
    def num_units(self) -> int:
        """Return the length of the chain that the plan is for."""
        return len(list(units_of(self.steps)))

    @classmethod
    def save_all(cls, num_units: int) -> Self:
        """Return the plan that does without checkpointing."""
        return cls(tuple(SaveAll(unit) for unit in range(num_units)))

    @classmethod
    def recompute_all(cls, num_units: int) -> Self:
        """Return the plan that saves the input of each unit, and computes each again on its own."""
        return cls(tuple(Recompute((SaveAll(unit),)) for unit in range(num_units)))

    @classmethod
    def selective(cls, num_units: int) -> Self:
        """Return the plan that saves what is expensive to compute in each unit."""
        return cls(tuple(SaveSome(unit) for unit in range(num_units)))

    @classmethod
    def offload_all(cls, num_units: int) -> Self:
        """Return the plan that saves everything of each unit in host memory."""
        return cls(tuple(Offload(unit) for unit in range(num_units)))


def to_json(steps: Sequence[Step]) -> list[Any]:
    """Return steps as JSON: an index, `{offload}`, `{unit, save, no_cache, count}`, or `{recompute: [...]}`."""
    content: list[Any] = []
    for step in steps:
        if isinstance(step, Recompute):
            content.append({"recompute": to_json(step.steps)})
        elif isinstance(step, SaveAll):
            content.append(step.unit)
        elif isinstance(step, Offload):
            content.append({"offload": step.unit})
        else:
            save = None if step.save is None else list(step.save)
            content.append({"unit": step.unit, "save": save, "no_cache": step.no_cache, "count": step.count})
    return content


def from_json(content: Sequence[Any]) -> tuple[Step, ...]:
    """Return the steps that `to_json` wrote. Raises `KeyError` or `TypeError` for anything else."""
    steps: list[Step] = []
    for item in content:
        if isinstance(item, int):
            steps.append(SaveAll(item))
        elif "recompute" in item:
            steps.append(Recompute(from_json(item["recompute"])))
        elif "offload" in item:
            steps.append(Offload(item["offload"]))
        else:
            save = None if item["save"] is None else tuple(item["save"])
            steps.append(SaveSome(item["unit"], save, item["no_cache"], item["count"]))
    return tuple(steps)


def shifted(steps: Sequence[Step], by: int) -> tuple[Step, ...]:
    """Return the same steps for units whose indices are higher by `by`."""
    return tuple(
        Recompute(shifted(step.steps, by)) if isinstance(step, Recompute) else replace(step, unit=step.unit + by)
        for step in steps
    )


def between(steps: Sequence[Step], start: int, end: int) -> tuple[Step, ...]:
    """Return what the steps say of the units from `start` to before `end`, numbered from 0."""
    found: list[Step] = []
    for step in steps:
        units = [unit for unit in units_of([step]) if start <= unit < end]
        if not units:
            continue
        if isinstance(step, Recompute):
            found.append(Recompute(between(step.steps, start, end)))
        elif isinstance(step, SaveSome):
            found.append(replace(step, unit=units[0] - start, count=len(units)))
        else:
            found.append(SaveAll(step.unit - start))
    return tuple(found)


def units_of(steps: Sequence[Step]) -> Iterator[int]:
    """Yield the units that steps name, in order."""
    for step in steps:
        if isinstance(step, Recompute):
            yield from units_of(step.steps)
        elif isinstance(step, SaveSome):
            yield from range(step.unit, step.unit + step.count)
        else:
            yield step.unit


def selective_steps(steps: Sequence[Step]) -> Iterator[SaveSome]:
    """Yield the steps that save some of their units, those inside of ranges too."""
    for step in steps:
        if isinstance(step, Recompute):
            yield from selective_steps(step.steps)
        elif isinstance(step, SaveSome):
            yield step
