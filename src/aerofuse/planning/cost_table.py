"""The fastest plan for every budget: a dynamic program over ranges of units.

In the manner of Beaumont, Herrmann, Pallez and Shilova, *Optimal memory-aware backpropagation of deep join networks*
and *Optimal checkpointing for heterogeneous chains* (arXiv 1911.13214), with several policies for a unit, peaks
inside of units, and time counted as what is computed again.

`least[s, t](m)` is the least time of what is computed again when the units s to t run forward and backward within m
bytes, besides the input of s and what was alive before. Either s, or a row of linked units that s begins, follows one
of its policies and the rest comes after it, or s to j-1 run and save nothing but the input of j, the rest follows, and
then s to j-1 run again. The few kilobytes of running statistics that are copied for that are left out of the table, not
of what a plan is said to cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aerofuse.checkpointing.steps import ChainPlan, Recompute, Step
from aerofuse.planning.profiling import ChainProfile
from aerofuse.planning.simulation import LinkedUnits

# The numbers of units of a kind that are tried as a row.
ROW_LENGTHS = (1, 2, 3, 4, 6, 8)
Times = NDArray[np.float32]


@dataclass(frozen=True)
class _Choice:
    """A row of linked units, or a single one, under one policy, in levels of the table.

    `backward` is needed besides what later units leave there, `forward` besides what waits meanwhile, in bytes still.
    """

    row: LinkedUnits
    end: int
    backward: int
    forward_bytes: int
    taken: int
    seconds: np.float32

    @property
    def offloads(self) -> bool:
        """Return whether it is a unit that is offloaded."""
        return self.row.policy.offloads


class CostTable:
    """The program's table for budgets up to `most_bytes`, in so many levels."""

    def __init__(self, profile: ChainProfile, count_gradients: bool, most_bytes: float, levels: int) -> None:
        self.count_gradients = count_gradients
        self._units = profile.units
        self._count = count = len(profile.units)
        self._level_bytes = max(most_bytes / levels, 1.0)
        # Behind a unit that frees more than it gives there is more left than there was at first.
        given = (min(policy.saved_bytes for policy in unit.choices) + unit.output_bytes for unit in self._units)
        freed = sum(max(0, -num_bytes) for num_bytes in given)
        self._levels = levels + 1 + round(freed / self._level_bytes)
        gradients = [unit.gradient_bytes if self.count_gradients else 0 for unit in self._units]
        later = [0] * (count + 1)  # gradients of the parameters of the units from here on
        for index in reversed(range(count)):
            later[index] = later[index + 1] + gradients[index]
        # What waits while the units up to t run forward: the gradient of t's output, and those of later parameters.
        self._waiting = [unit.output_bytes + later[index + 1] for index, unit in enumerate(self._units)]
        self._waiting[-1] = 0
        self._later = later
        starts = {start for start in profile.starts if start}
        # The end of the chain that a unit is in. No range crosses it.
        self._chain_end = [min((start for start in starts if start > s), default=count) for s in range(count)]
        self._choices = [list(self._choices_of(s)) for s in range(count)]
        self._passings = [self._passing(s) for s in range(count)]
        self._read: dict[tuple[int, int, int], tuple[Step, ...]] = {}
        # least[s] has a row for each t up to the end of the chain, and one for the end of all where that is another.
        self._least: list[Times] = [np.empty(0, np.float32)] * count
        # The same with the bytes of the input of s taken off.
        self._after: list[Times] = [np.empty(0, np.float32)] * (count + 1)
        for s in reversed(range(count)):
            end = self._chain_end[s]
            waiting = np.asarray([*self._waiting[s:end], *self._waiting[count - 1 : count * (end < count)]])
            table = np.full((len(waiting), self._levels), np.inf, np.float32)
            self._add_choices(s, table, waiting)
            self._recompute(s, table, waiting)
            self._least[s] = table
            if s:
                self._after[s] = _shifted(table, self._up(self._units[s - 1].output_bytes))

    def _row(self, s: int, t: int) -> Times:
        """Return `least[s, t]`."""
        row: Times = self._least[s][t - s if t < self._chain_end[s] else -1]
        return row

    def _follows(self, tables: Sequence[Times], s: int, start: int) -> Times:
        """Return the rows of the units from `start` on for each t of the table of s that is not before them."""
        return tables[start] if start < self._chain_end[s] else tables[start][-1:]

    def plans(self) -> Iterator[ChainPlan]:
        """Yield the fastest plan for each level that allows a faster one than the level below."""
        times = self._row(0, self._count - 1)
        for level in range(self._levels):
            if not np.isinf(times[level]) and (level == 0 or times[level] < times[level - 1]):
                yield ChainPlan(self._steps(0, self._count - 1, level))

    def _up(self, num_bytes: float) -> int:
        """Levels that hold at least so many bytes; rounding errors of neighbours cancel, a plan is simulated."""
        return min(round(num_bytes / self._level_bytes), self._levels)

    def _all_up(self, num_bytes: NDArray[Any]) -> NDArray[np.int64]:
        return np.minimum(np.rint(num_bytes / self._level_bytes), self._levels).astype(np.int64)

    def _choices_of(self, s: int) -> Iterator[_Choice]:
        """Yield the policies of the unit s, alone or linked to those that follow, the shortest rows first."""
        for row in self._rows(s):
            end = s + row.count
            backward_bytes = row.backward_total_bytes if self.count_gradients else row.backward_bytes
            # What the unit before has offloaded, too, of the same kind in most cases, is there meanwhile.
            backward_bytes += row.late_bytes
            yield _Choice(
                row,
                end,
                self._up(backward_bytes + self._later[end]),
                row.forward_bytes + row.late_bytes,
                self._up(row.saved_bytes + row.unit.output_bytes),
                np.float32(row.replay_seconds),
            )

    def _rows(self, s: int) -> Iterator[LinkedUnits]:
        unit = self._units[s]
        alike = 1
        while s + alike < self._chain_end[s] and unit.is_like(self._units[s + alike]):
            alike += 1
        for count in ROW_LENGTHS:
            if count <= alike:
                yield from (
                    LinkedUnits(unit, policy, count)
                    for policy in unit.choices
                    if count == 1 or policy.link_seconds is not None
                )

    def _add_choices(self, s: int, table: Times, waiting: NDArray[np.int64]) -> None:
        """The unit s, or a row that it begins, under one of its policies, the rest after it."""
        for choice in self._choices[s]:
            count = choice.end - s
            forward = self._all_up(choice.forward_bytes + waiting)
            if not choice.offloads:  # no range does
                # The range that ends here.
                alone = max(choice.backward, int(forward[count - 1]))
                np.minimum(table[count - 1, alone:], choice.seconds, out=table[count - 1, alone:])
            if choice.end == self._count:
                continue
            rest = self._follows(self._least, s, choice.end)
            if choice.offloads:
                rest = rest[-1:]  # up to the last unit of all: the plan itself
            if choice.taken < 0:
                rest = _shifted(rest, choice.taken)
            taken = max(choice.taken, 0)
            needed = np.maximum(forward[-len(rest) :], max(choice.backward, taken)).tolist()
            place = table[-len(rest) :]
            for first, rows in _runs(needed):
                times = rest[rows, first - taken : self._levels - taken] + choice.seconds
                np.minimum(place[rows, first:], times, out=place[rows, first:])

    def _recompute(self, s: int, table: Times, waiting: NDArray[np.int64]) -> None:
        """The units s to j-1 computed again, for every j, what follows them before that."""
        seconds, passing = self._passings[s]
        level = np.arange(self._levels)
        peak, allowed = -1.0, table
        for j in range(s + 1, min(self._chain_end[s], self._count - 1) + 1):
            if passing[j - s - 1] != peak:
                peak = passing[j - s - 1]
                allowed = np.where(level >= self._all_up(peak + waiting)[:, None], np.float32(0), np.float32(np.inf))
            after = self._follows(self._after, s, j)
            times = after + (table[j - s - 1] + np.float32(seconds[j - s - 1]))
            times += allowed[-len(after) :]
            place = table[-len(after) :]
            np.minimum(place, times, out=place)

    def _passing(self, s: int) -> tuple[list[float], list[float]]:
        """Of the units s to j-1, for every j: the time of a second run, and the peak of a first one."""
        seconds: list[float] = []
        peaks: list[float] = []
        before, peak, incoming = 0.0, 0.0, 0
        for unit in self._units[s:]:
            peak = max(peak, incoming + unit.passing_bytes)
            seconds.append(before + unit.rerun_seconds)
            peaks.append(peak)
            before += unit.whole_rerun_seconds
            incoming = unit.output_bytes
        return seconds, peaks

    def _steps(self, s: int, t: int, level: int) -> tuple[Step, ...]:
        """Return the choices behind `least[s, t]` at a level, made again; those of neighbouring levels end alike."""
        if s > t:
            return ()
        key = (s, t, level)
        if key not in self._read:
            best = self._row(s, t)[level]
            choice = self._chosen_row(s, t, level, best)
            if choice is not None:
                step: Step = choice.row.policy.step(s, choice.row.count)
                rest = self._steps(choice.end, t, self._left(level, choice.taken))
            else:
                j = self._chosen_split(s, t, level, best)
                step = Recompute(self._steps(s, j - 1, level))
                rest = self._steps(j, t, level - self._up(self._units[j - 1].output_bytes))
            self._read[key] = (step, *rest)
        return self._read[key]

    def _left(self, level: int, taken: int) -> int:
        return min(level - taken, self._levels - 1)

    def _chosen_row(self, s: int, t: int, level: int, best: float) -> _Choice | None:
        for choice in self._choices[s]:
            if choice.end > t + 1:
                return None
            if level < choice.backward or (choice.offloads and t < self._count - 1):
                continue
            if choice.end == t + 1:
                seconds = choice.seconds
            elif level < choice.taken:
                continue
            else:
                seconds = self._row(choice.end, t)[self._left(level, choice.taken)] + choice.seconds
            if seconds <= best and level >= self._up(choice.forward_bytes + self._waiting[t]):
                return choice
        return None

    def _chosen_split(self, s: int, t: int, level: int, best: float) -> int:
        seconds, passing = self._passings[s]
        for j in range(s + 1, min(t, self._chain_end[s]) + 1):
            if level < self._up(passing[j - s - 1] + self._waiting[t]):
                continue
            after = self._after[j][t - j if t < self._chain_end[j] else -1]
            if after[level] + (self._least[s][j - 1 - s][level] + np.float32(seconds[j - s - 1])) <= best:
                return j
        raise AssertionError("the table and the reading of it differ")


def _runs(values: Sequence[int]) -> Iterator[tuple[int, slice]]:
    """Yield each value with the rows that have it one after the other."""
    start = 0
    for value, group in groupby(values):
        end = start + sum(1 for _ in group)
        yield value, slice(start, end)
        start = end


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
