"""The fastest plan for every budget: a dynamic program over ranges of units.

In the manner of Beaumont, Herrmann, Pallez and Shilova, *Optimal memory-aware backpropagation of deep join networks*
and *Optimal checkpointing for heterogeneous chains* (arXiv 1911.13214), with several policies for a unit, peaks
inside of units, and time counted as what is computed again.

`least[s, t](m)` is the least time of what is computed again when the units s to t run forward and backward within m
bytes, besides the input of s and what was alive before. Either s, or a row of linked units that s begins, follows one
of its policies and the rest comes after it, or s to j-1 run and save nothing but the input of j, the rest follows, and
then s to j-1 run again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aerofuse.checkpointing.steps import ChainPlan, Offload, Recompute, SaveAll, SaveSome, Step
from aerofuse.planning.simulation import row_cost
from aerofuse.planning.unit_costs import ChainProfile

# The numbers of units of a kind that are tried as a row.
ROW_LENGTHS = (1, 2, 3, 4, 6, 8)
Times = NDArray[np.float32]


@dataclass(frozen=True)
class _Choice:
    """A row of linked units, or a single one, under one policy, in levels of the table.

    `backward` is needed besides what later units leave there, `forward` besides what waits meanwhile, in bytes still.
    """

    step: SaveAll | Offload | SaveSome
    end: int
    backward: int
    forward_bytes: int
    taken: int
    seconds: np.float32


@dataclass(frozen=True)
class _LeastTimes:
    """Of the units that begin at s, by the last one and by level: the least time, and what comes first.

    That is the number of a choice, or below 0 the length of a range.
    """

    times: Times
    first: NDArray[np.int16]

    @classmethod
    def empty(cls, ends: int, levels: int) -> _LeastTimes:
        """Return a row in which nothing is possible."""
        return cls(np.full((ends, levels), np.inf, np.float32), np.zeros((ends, levels), np.int16))

    def offer(self, place: tuple[slice | int, slice], times: Times | np.float32, first: int) -> None:
        """Take what is faster than what is there."""
        known = self.times[place]
        better = times < known
        np.copyto(known, times, where=better)
        np.copyto(self.first[place], first, where=better)


class CostTable:
    """The program's table for budgets up to `most_bytes`, in so many levels."""

    def __init__(self, profile: ChainProfile, count_gradients: bool, most_bytes: float, levels: int) -> None:
        self._count_gradients = count_gradients
        self._units = profile.units
        self._count = count = len(profile.units)
        self._level_bytes = max(most_bytes / levels, 1.0)
        # Behind a unit that frees more than it gives there is more left than there was at first.
        given = (min(policy.bytes.saved for policy in unit.policies) + unit.output_bytes for unit in self._units)
        freed = sum(max(0, -num_bytes) for num_bytes in given)
        self._levels = levels + 1 + round(freed / self._level_bytes)
        self._later = [0] * (count + 1)  # gradients of the parameters of the units from here on
        for index in reversed(range(count)):
            self._later[index] = self._later[index + 1] + count_gradients * self._units[index].gradient_bytes
        starts = {start for start in profile.starts if start}
        # The end of the chain that a unit is in. No range crosses it.
        self._chain_end = [min((start for start in starts if start > s), default=count) for s in range(count)]
        self._choices = [list(self._choices_of(s)) for s in range(count)]
        self._read: dict[tuple[int, int, int], tuple[Step, ...]] = {}
        # Of s there are times for each t up to the end of the chain, and for the end of all where that is another.
        self._least: list[_LeastTimes] = [_LeastTimes.empty(0, 0)] * count
        # The same times with the bytes of the input of s taken off.
        self._after: list[Times] = [np.empty(0, np.float32)] * (count + 1)
        for s in reversed(range(count)):
            self._fill(s)

    def plans(self) -> Iterator[ChainPlan]:
        """Yield the fastest plan for each level that allows a faster one than the level below."""
        times = self._least[0].times[-1]
        for level in range(self._levels):
            if not np.isinf(times[level]) and (level == 0 or times[level] < times[level - 1]):
                yield ChainPlan(self._steps(0, self._count - 1, level))

    def _fill(self, s: int) -> None:
        end = self._chain_end[s]
        # What waits while the units up to t run forward: the gradient of t's output, and those of later parameters.
        ends = [*range(s, end), *([self._count - 1] if end < self._count else [])]
        waiting = [self._units[t].output_bytes + self._later[t + 1] if t + 1 < self._count else 0 for t in ends]
        row = self._least[s] = _LeastTimes.empty(len(ends), self._levels)
        self._add_choices(s, row, np.asarray(waiting))
        self._add_ranges(s, row, np.asarray(waiting))
        if s:
            self._after[s] = _shifted(row.times, self._up(self._units[s - 1].output_bytes))

    def _up(self, num_bytes: float) -> int:
        """Levels that hold at least so many bytes; rounding errors of neighbours cancel, a plan is simulated."""
        return min(round(num_bytes / self._level_bytes), self._levels)

    def _all_up(self, num_bytes: NDArray[Any]) -> NDArray[np.int64]:
        return np.minimum(np.rint(num_bytes / self._level_bytes), self._levels).astype(np.int64)

    def _choices_of(self, s: int) -> Iterator[_Choice]:
        """Yield the policies of the unit s, alone or linked to those that follow, the shortest rows first."""
        unit = self._units[s]
        alike = 1
        while s + alike < self._chain_end[s] and unit.is_like(self._units[s + alike]):
            alike += 1
        for count in ROW_LENGTHS:
            for policy in unit.policies:
                if count == 1 or (count <= alike and policy.link_seconds is not None):
                    cost = row_cost(unit, policy, count)
                    backward = cost.backward
                    backward_bytes = backward.total_bytes if self._count_gradients else backward.activation_bytes
                    # What the unit before has offloaded, too, of the same kind in most cases, is there meanwhile.
                    yield _Choice(
                        policy.step(s, count),
                        s + count,
                        self._up(backward_bytes + cost.late_bytes + self._later[s + count]),
                        cost.forward_bytes + cost.late_bytes,
                        self._up(cost.left_bytes),
                        np.float32(backward.replay_seconds),
                    )

    def _add_choices(self, s: int, row: _LeastTimes, waiting: NDArray[np.int64]) -> None:
        """The unit s, or a row that it begins, under one of its policies, the rest after it."""
        for number, choice in enumerate(self._choices[s]):
            count = choice.end - s
            forward = self._all_up(choice.forward_bytes + waiting)
            offloads = isinstance(choice.step, Offload)
            if not offloads:  # no range does
                # The range that ends here.
                alone = max(choice.backward, int(forward[count - 1]))
                row.offer((count - 1, slice(alone, None)), choice.seconds, number)
            if choice.end == self._count:
                continue
            rest = self._least[choice.end].times
            if offloads or choice.end == self._chain_end[s]:
                rest = rest[-1:]  # up to the last unit of all: the plan itself
            if choice.taken < 0:
                rest = _shifted(rest, choice.taken)
            taken = max(choice.taken, 0)
            needed = np.maximum(forward[-len(rest) :], max(choice.backward, taken)).tolist()
            skipped = len(waiting) - len(rest)
            for first, start, stop in _runs(needed):
                times = rest[start:stop, first - taken : self._levels - taken] + choice.seconds
                row.offer((slice(skipped + start, skipped + stop), slice(first, None)), times, number)

    def _add_ranges(self, s: int, row: _LeastTimes, waiting: NDArray[np.int64]) -> None:
        """The units s to j-1 computed again, for every j, what follows them before that."""
        level = np.arange(self._levels)
        incoming, peak_bytes, before = 0, -1, 0.0
        allowed: Times = np.empty(0, np.float32)
        for j in range(s + 1, min(self._chain_end[s], self._count - 1) + 1):
            unit = self._units[j - 1]
            if incoming + unit.passing_bytes > peak_bytes:  # the peak of the first run
                peak_bytes = incoming + unit.passing_bytes
                needed = self._all_up(peak_bytes + waiting)[:, None]
                allowed = np.where(level >= needed, np.float32(0), np.float32(np.inf))
            after = self._after[j] if j < self._chain_end[s] else self._after[j][-1:]
            times = after + (row.times[j - s - 1] + np.float32(before + unit.seconds.rerun))
            times += allowed[-len(after) :]
            row.offer((slice(len(waiting) - len(after), None), slice(None)), times, s - j)
            before += unit.seconds.whole_rerun
            incoming = unit.output_bytes

    def _steps(self, s: int, t: int, level: int) -> tuple[Step, ...]:
        """Return the choices behind `least[s, t]` at a level; those of neighbouring levels end alike."""
        if s > t:
            return ()
        key = (s, t, level)
        if key not in self._read:
            first = int(self._least[s].first[t - s if t < self._chain_end[s] else -1, level])
            if first < 0:
                end = s - first
                step: Step = Recompute(self._steps(s, end - 1, level))
                left = level - self._up(self._units[end - 1].output_bytes)
            else:
                choice = self._choices[s][first]
                step, end = choice.step, choice.end
                left = min(level - choice.taken, self._levels - 1)
            self._read[key] = (step, *self._steps(end, t, left))
        return self._read[key]


def _runs(values: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Yield each value with the first row that has it, and the first of the rows after it that has not."""
    start = 0
    for value, group in groupby(values):
        stop = start + sum(1 for _ in group)
        yield value, start, stop
        start = stop


def _shifted(table: Times, levels: int) -> Times:
    """Return what is left of each row when so many levels are taken."""
    if levels == 0:
        return table.copy()
    shifted = np.full_like(table, np.inf)
    if levels > 0:
        shifted[:, levels:] = table[:, :-levels] if levels < table.shape[1] else table[:, :0]
    else:  # more is left: a unit that lets its input go, and gives less
        shifted[:, :levels] = table[:, -levels:]
        shifted[:, levels:] = table[:, -1:]
    return shifted
