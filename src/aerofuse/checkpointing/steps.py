"""What is saved of each unit of a chain for the backward pass, and which ranges of units are computed again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
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

    def content(step: Step) -> Any:
        match step:
            case SaveAll(unit):
                return unit
            case Offload(unit):
                return {"offload": unit}
            case Recompute(inner):
                return {"recompute": to_json(inner)}
            case SaveSome():
                return asdict(step)

    return [content(step) for step in steps]


def from_json(content: Sequence[Any]) -> tuple[Step, ...]:
    """Return the steps that `to_json` wrote. Raises `KeyError` or `TypeError` for anything else."""

    def step(item: Any) -> Step:
        if isinstance(item, int):
            return SaveAll(item)
        if "recompute" in item:
            return Recompute(from_json(item["recompute"]))
        if "offload" in item:
            return Offload(item["offload"])
        return SaveSome(**item | {"save": None if item["save"] is None else tuple(item["save"])})

    return tuple(step(item) for item in content)


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
            found.append(replace(step, unit=units[0] - start))
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


def units_seen_into(steps: Sequence[Step], *, again: bool = False) -> Iterator[int]:
    """Yield the units of which chosen results are saved, now or when they run `again`: they are not compiled."""
    for step in steps:
        if isinstance(step, Recompute):
            yield from units_seen_into(step.steps, again=True)
        elif isinstance(step, SaveSome) and (again or step.save is not None):
            yield from units_of([step])
