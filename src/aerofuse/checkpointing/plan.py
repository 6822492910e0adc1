"""Plans: which units of a chain are kept, thinned, or computed again, alone or range by range."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from typing import Any, Self


class Policy(StrEnum):
    """What is kept of one unit between its forward and its backward pass."""

    KEEP_ALL = "keep_all"  # as without checkpointing
    KEEP_DEAR = "keep_dear"  # outputs of convolutions, matrix products and attention; the rest is computed again
    RECOMPUTE_ALL = "recompute_all"  # only the unit's input


@dataclass(frozen=True)
class Keep:
    """A unit of which everything is kept."""

    unit: int


@dataclass(frozen=True)
class Thin:
    """A unit of which the results of some calls are kept, and the rest is computed from them tensor by tensor.

    `keep` names the calls (`linear.0`, `conv2d.1`); without it, those are kept that are dear to compute. A `sparing`
    unit does not even hold what it has just computed again for a second use, but computes it once more.

    `count` consecutive units may be linked: treated alike, and only the input of the first is held. That of each other
    is computed from it and from what the units between keep of their residual branches: a few sums.
    """

    unit: int
    keep: tuple[str, ...] | None = None
    sparing: bool = False
    count: int = 1


@dataclass(frozen=True)
class Recompute:
    """Consecutive units of which only the first one's input is kept.

    When the backward pass reaches them they run again, then treated as `steps` say; so ranges may be nested.
    """

    steps: tuple[Step, ...]


Step = Keep | Thin | Recompute


@dataclass(frozen=True)
class Plan:
    """How each unit of a chain is treated. The steps name every unit once, in order."""

    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        units = list(units_of(self.steps))
        if units != list(range(len(units))):
            raise ValueError(f"a plan names every unit once and in order, this one names {units}")

    @property
    def num_units(self) -> int:
        """The length of the chain that the plan is for."""
        return len(list(units_of(self.steps)))

    @classmethod
    def uniform(cls, policy: Policy, num_units: int) -> Self:
        """The same policy for every unit."""
        single: dict[Policy, type[Keep] | type[Thin]] = {Policy.KEEP_ALL: Keep, Policy.KEEP_DEAR: Thin}
        if policy is Policy.RECOMPUTE_ALL:
            return cls(tuple(Recompute((Keep(unit),)) for unit in range(num_units)))
        return cls(tuple(single[policy](unit) for unit in range(num_units)))

    @classmethod
    def segmented(cls, held_bytes: Sequence[int], segments: int) -> Self:
        """Ranges that hold about the same number of bytes, all but the last computed again.

        The last one's backward pass follows at once: to drop it would cost time and save nothing.
        `held_bytes` are what each unit holds between its forward and its backward pass. Raises `ValueError` where
        there are fewer units than segments.
        """
        check_segments(segments, len(held_bytes))
        bounds = [*split_evenly(held_bytes, segments), len(held_bytes)]
        ranges = [tuple(Keep(unit) for unit in range(*pair)) for pair in pairwise(bounds)]
        return cls((*(Recompute(steps) for steps in ranges[:-1]), *ranges[-1]))


def to_json(steps: Sequence[Step]) -> list[Any]:
    """Steps as JSON: the index of a unit that is kept, `{unit, keep, sparing, count}` or `{recompute: [...]}`."""
    content: list[Any] = []
    for step in steps:
        if isinstance(step, Recompute):
            content.append({"recompute": to_json(step.steps)})
        elif isinstance(step, Keep):
            content.append(step.unit)
        else:
            keep = None if step.keep is None else list(step.keep)
            content.append({"unit": step.unit, "keep": keep, "sparing": step.sparing, "count": step.count})
    return content


def from_json(content: Sequence[Any]) -> tuple[Step, ...]:
    """The steps that `to_json` wrote. Raises `KeyError` or `TypeError` for anything else."""
    steps: list[Step] = []
    for item in content:
        if isinstance(item, int):
            steps.append(Keep(item))
        elif "recompute" in item:
            steps.append(Recompute(from_json(item["recompute"])))
        else:
            keep = None if item["keep"] is None else tuple(item["keep"])
            steps.append(Thin(item["unit"], keep, item["sparing"], item["count"]))
    return tuple(steps)


def shifted(steps: Sequence[Step], by: int) -> tuple[Step, ...]:
    """The same steps for units whose indices are higher by `by`."""
    return tuple(
        Recompute(shifted(step.steps, by)) if isinstance(step, Recompute) else replace(step, unit=step.unit + by)
        for step in steps
    )


def units_of(steps: Sequence[Step]) -> Iterator[int]:
    """The units that steps name, in order."""
    for step in steps:
        if isinstance(step, Recompute):
            yield from units_of(step.steps)
        elif isinstance(step, Thin):
            yield from range(step.unit, step.unit + step.count)
        else:
            yield step.unit


def check_segments(segments: int, num_units: int) -> None:
    """Raises `ValueError` for what is no number of segments of a chain of `num_units`."""
    if isinstance(segments, bool) or not isinstance(segments, int):
        raise ValueError(f"segments must be a whole number from 1 to {num_units}, not {segments!r}")
    if not 1 <= segments <= num_units:
        raise ValueError(f"segments is {segments}; this chain has {num_units} units, so 1 to {num_units} are possible")


def split_evenly(sizes: Sequence[int], parts: int) -> list[int]:
    """Where each of `parts` consecutive, non-empty parts starts, so that the largest part is as small as possible."""
    count = len(sizes)
    total = [0]
    for size in sizes:
        total.append(total[-1] + size)
    # least[p][end]: the smallest possible largest part, when the first `end` sizes make p parts; start[p][end]: how.
    least: list[list[float]] = [[0.0] + [float("inf")] * count]
    starts: list[list[int]] = [[0] * (count + 1)]
    for part in range(1, parts + 1):
        least.append([float("inf")] * (count + 1))
        starts.append([0] * (count + 1))
        for end in range(part, count + 1):
            for start in range(part - 1, end):
                largest = max(least[part - 1][start], total[end] - total[start])
                if largest < least[part][end]:
                    least[part][end], starts[part][end] = largest, start
    bounds = [count]
    for part in range(parts, 0, -1):
        bounds.insert(0, starts[part][bounds[0]])
    return bounds[:-1]
