"""Ranges of a chain that save about as many bytes, found without running the chain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from aerofuse.checkpointing.chain import Chain
from aerofuse.checkpointing.snapshot import Autocast
from aerofuse.checkpointing.steps import ChainPlan, Recompute, SaveAll
from aerofuse.memory.fake import FakeCopy
from aerofuse.memory.torch_private import all_modes_off


def check_segments(segments: int, num_units: int) -> None:
    """Raise `ValueError` for what is no number of segments of a chain of `num_units`."""
    if isinstance(segments, bool) or not isinstance(segments, int):
        raise ValueError(f"segments must be a whole number from 1 to {num_units}, not {segments!r}")
    if not 1 <= segments <= num_units:
        raise ValueError(f"segments is {segments}; this chain has {num_units} units, so 1 to {num_units} are possible")


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


def saved_bytes(network: nn.Module, read_chain: Callable[[Any], Chain], inputs: Tensor) -> list[int]:
    """Return the bytes of the distinct tensors that each unit saves, parameters and buffers left out.

    They are counted on a fake copy of `network`: nothing is computed, and the network itself is not touched. A tensor
    that two units save counts for the first. Raises `ValueError` for a network that cannot be copied so.
    """
    counted: set[Any] = set()
    sizes: list[int] = []
    alive: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in counted:
            counted.add(storage._cdata)
            alive.append(tensor.detach())  # so that no other tensor takes its place
            sizes[-1] += storage.nbytes()
        return tensor

    # Autocast must not remember the fake copies that it makes of weights.
    autocast = Autocast.capture(inputs.device).restored(cache=False)
    # The network may be a fake copy itself, whose step is being counted.
    with all_modes_off(), FakeCopy(network).active() as fake, torch.enable_grad(), autocast:
        for tensor in (*fake.parameters(), *fake.buffers()):
            counted.add(tensor.untyped_storage()._cdata)
        x = torch.empty_strided(inputs.size(), inputs.stride(), dtype=inputs.dtype, device=inputs.device)
        x.requires_grad_(inputs.requires_grad)
        counted.add(x.untyped_storage()._cdata)
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            for unit in read_chain(fake):
                sizes.append(0)
                x = unit.run(x)
    return sizes
