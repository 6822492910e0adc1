"""Which results of a unit to save: from none to all that matter, the best bargain first."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from aerofuse.checkpointing.recompute_graph import Call

# Plans choose among so many policies per unit besides saving all and recomputing ranges.
MOST_POLICIES = 6


def sets_to_save(
    calls: Sequence[Call], seconds: Mapping[str, float], most: int = MOST_POLICIES
) -> list[tuple[str, ...]]:
    """Return sets of calls whose results to save, growing: each adds what saves the most time per byte.

    `seconds` is what each call takes when it is made again. The first set is empty. Of more than `most` sets, those
    are taken whose times of replay are spread most evenly.
    """
    by_name = {call.name: call for call in calls}
    chosen: list[str] = []
    found: list[tuple[str, ...]] = [()]
    times = [replay_seconds(by_name, chosen, seconds)]
    while times[-1] > 0:
        bargains = [
            ((times[-1] - replay_seconds(by_name, [*chosen, call.name], seconds)) / max(call.num_bytes, 1), call.name)
            for call in calls
            if call.name not in chosen and not call.is_output
        ]
        gain, name = max(bargains, default=(0.0, ""))
        if gain <= 0:
            break
        chosen.append(name)
        found.append(tuple(chosen))
        times.append(replay_seconds(by_name, chosen, seconds))
    return [found[index] for index in _spread(times, most)]


def replay_seconds(calls: Mapping[str, Call], save: Collection[str], seconds: Mapping[str, float]) -> float:
    """Return the time of the calls that are made again when the results of those in `save` are saved."""
    return sum(seconds.get(name, 0.0) for name in replayed(calls, save))


def no_cache_seconds(calls: Mapping[str, Call], save: Collection[str], seconds: Mapping[str, float]) -> float:
    """Return the same without a cache: each result that autograd wants is made from what is saved."""

    def making(name: str) -> float:
        call = calls[name]
        if name in save or call.is_output:
            return 0.0
        return seconds.get(name, 0.0) + sum(making(source) for source in call.sources)

    return sum(making(call.name) for call in calls.values() if call.saved)


def link_seconds(calls: Mapping[str, Call], save: Collection[str], seconds: Mapping[str, float]) -> float | None:
    """Return the time to make the unit's output from its input and from what is saved, `None` where that cannot be."""
    output = next((call for call in calls.values() if call.is_output), None)
    if output is None:
        return None
    return sum(seconds.get(name, 0.0) for name in _led_to(calls, save, output.name))


def link_bytes(calls: Mapping[str, Call], save: Collection[str]) -> int:
    """Return the bytes that are saved for the output alone."""
    output = next(call.name for call in calls.values() if call.is_output)
    saved = [call.name for call in calls.values() if call.saved]
    wanted_anyway = {*saved, *(source for name in replayed(calls, save) for source in calls[name].sources)}
    sources = {source for name in _led_to(calls, save, output) for source in calls[name].sources}
    return sum(calls[name].num_bytes for name in sources if name in save and name not in wanted_anyway)


def _led_to(calls: Mapping[str, Call], save: Collection[str], name: str) -> set[str]:
    """Return the calls that are made again for one result."""
    needed: set[str] = set()

    def need(name: str) -> None:
        if name not in needed and name not in save:
            needed.add(name)
            for source in calls[name].sources:
                need(source)

    need(name)
    return needed


def replayed(calls: Mapping[str, Call], save: Collection[str]) -> set[str]:
    """Return the calls that are made again: those whose results autograd wants, and what leads to them."""
    needed: set[str] = set()

    def need(names: Sequence[str]) -> None:
        for name in names:
            call = calls[name]
            if name not in needed and name not in save and not call.is_output:
                needed.add(name)
                need(call.sources)

    need([call.name for call in calls.values() if call.saved])
    return needed


def _spread(times: Sequence[float], most: int) -> Iterator[int]:
    """Yield indices of at most `most` of the falling `times`, the first and the last among them."""
    if len(times) <= most:
        yield from range(len(times))
        return
    wanted = [times[0] + (times[-1] - times[0]) * step / (most - 1) for step in range(most)]
    chosen = {min(range(len(times)), key=lambda index: abs(times[index] - time)) for time in wanted}
    yield from sorted(chosen | {0, len(times) - 1})
