"""Which results of a unit to save: from none to all that matter, the best bargain first."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from aerofuse.checkpointing.recompute_graph import Call

# Plans choose among so many policies per unit besides saving all and recomputing ranges.
MOST_POLICIES = 6


@dataclass(frozen=True)
class Replays:
    """The calls of a unit, and the seconds that each takes when it is made again.

    `save` are always the names of the calls whose results are saved.
    """

    calls: Sequence[Call]
    seconds: Mapping[str, float]

    @cached_property
    def _by_name(self) -> Mapping[str, Call]:
        return {call.name: call for call in self.calls}

    @cached_property
    def _output(self) -> str | None:
        return next((call.name for call in self.calls if call.is_output), None)

    def replayed(self, save: Collection[str]) -> set[str]:
        """Return the calls that are made again: those whose results autograd wants, and what leads to them."""
        wanted = (call.name for call in self.calls if call.saved)
        return self._leading_to(wanted, {*save, self._output})

    def replay_seconds(self, save: Collection[str]) -> float:
        """Return the time of the calls that are made again."""
        return self._sum(self.replayed(save))

    def no_cache_seconds(self, save: Collection[str]) -> float:
        """Return the same without a cache: each result that autograd wants is made from what is saved."""

        def making(name: str) -> float:
            if name in save or name == self._output:
                return 0.0
            return self._sum([name]) + sum(making(source) for source in self._by_name[name].sources)

        return sum(making(call.name) for call in self.calls if call.saved)

    def link_seconds(self, save: Collection[str]) -> float | None:
        """Return the time to make the unit's output from its input and what is saved, `None` where that cannot be."""
        return None if self._output is None else self._sum(self._leading_to([self._output], save))

    def link_bytes(self, save: Collection[str]) -> int:
        """Return the bytes that are saved for the output alone."""
        assert self._output is not None
        saved = {call.name for call in self.calls if call.saved}
        wanted_anyway = saved | self._sources(self.replayed(save))
        alone = self._sources(self._leading_to([self._output], save)) & {*save} - wanted_anyway
        return sum(self._by_name[name].num_bytes for name in alone)

    def _sum(self, names: Iterable[str]) -> float:
        return sum(self.seconds.get(name, 0.0) for name in names)

    def _sources(self, names: Iterable[str]) -> set[str]:
        return {source for name in names for source in self._by_name[name].sources}

    def _leading_to(self, names: Iterable[str], known: Collection[str | None]) -> set[str]:
        """Return these calls and all that lead to them, as far as their results are not known."""
        needed: set[str] = set()
        waiting = [*names]
        while waiting:
            name = waiting.pop()
            if name not in needed and name not in known:
                needed.add(name)
                waiting += self._by_name[name].sources
        return needed


def sets_to_save(replays: Replays, most: int = MOST_POLICIES) -> list[tuple[str, ...]]:
    """Return sets of calls whose results to save, growing: each adds what saves the most time per byte.

    The first set is empty. Of more than `most` sets, those are taken whose times of replay are spread most evenly.
    """
    found: list[tuple[str, ...]] = [()]
    times = [replays.replay_seconds(())]
    while times[-1] > 0:
        bargains = [
            ((times[-1] - replays.replay_seconds((*found[-1], call.name))) / max(call.num_bytes, 1), call.name)
            for call in replays.calls
            if call.name not in found[-1] and not call.is_output
        ]
        gain, name = max(bargains, default=(0.0, ""))
        if gain <= 0:
            break
        found.append((*found[-1], name))
        times.append(replays.replay_seconds(found[-1]))
    return [found[index] for index in _spread(times, most)]


def _spread(times: Sequence[float], most: int) -> Iterator[int]:
    """Yield indices of at most `most` of the falling `times`, the first and the last among them."""
    if len(times) <= most:
        yield from range(len(times))
        return
    wanted = [times[0] + (times[-1] - times[0]) * step / (most - 1) for step in range(most)]
    chosen = {min(range(len(times)), key=lambda index: abs(times[index] - time)) for time in wanted}
    yield from sorted(chosen | {0, len(times) - 1})
