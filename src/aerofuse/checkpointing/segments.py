"""Ranges of a chain that save about as many bytes, found without running the chain."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from itertools import accumulate, pairwise
from operator import itemgetter

from aerofuse.checkpointing.steps import ChainPlan, Recompute, SaveAll


def check_segments(segments: int) -> None:
    """Raise `ValueError` for what is no number of segments."""
    if isinstance(segments, bool) or not isinstance(segments, int) or segments < 1:
        raise ValueError(f"segments must be a whole number from 1 on, not {segments!r}")


def check_segments_of_chains(segments: int, chains: Sequence[Sized]) -> None:
    """Raise `ValueError` for more segments than the longest chain has units."""
    longest = max(map(len, chains), default=0)
    if segments > longest:
        raise ValueError(
            f"segments is {segments}; the longest chain of this network has {longest} units, so 1 to {longest} are "
            "possible"
        )


def plan_segments(saved_bytes: Sequence[int], segments: int) -> ChainPlan:
    """Plan ranges that save about the same number of bytes, all but the last computed again.

    The backward pass of the last one follows at once: to drop it would cost time and save nothing.
    `saved_bytes` are those of each unit.
    """
    bounds = [*split_evenly(saved_bytes, segments), len(saved_bytes)]
    ranges = [tuple(SaveAll(unit) for unit in range(*pair)) for pair in pairwise(bounds)]
    return ChainPlan((*(Recompute(steps) for steps in ranges[:-1]), *ranges[-1]))


def split_evenly(sizes: Sequence[int], parts: int) -> list[int]:
    """Return where each of `parts` consecutive, non-empty parts starts; the largest part is as small as possible."""
    total = [0, *accumulate(sizes)]
    # By where the parts so far end: the largest of them, and where they start.
    best: dict[int, tuple[int, tuple[int, ...]]] = {0: (0, ())}
    for _ in range(parts):
        best = {
            end: min(
                (
                    (max(largest, total[end] - total[start]), (*starts, start))
                    for start, (largest, starts) in best.items()
                    if start < end
                ),
                key=itemgetter(0),
            )
            for end in range(min(best) + 1, len(total))
        }
    return list(best[len(sizes)][1])
