"""From a policy that needs no planner to the plans of a network's chains: its units are found when a batch is seen."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from aerofuse.checkpointing.attached import Attached, Chooser, Chosen, attached_to, kind_of
from aerofuse.checkpointing.call_trace import trace_calls
from aerofuse.checkpointing.find_units import IsUnit, TracedChain, find_chains, names_of
from aerofuse.checkpointing.policy import OffloadAll, RecomputeAll, Segments, Selective
from aerofuse.checkpointing.segments import plan_segments
from aerofuse.checkpointing.steps import ChainPlan
from aerofuse.checkpointing.unit_calls import FoundChain, remove_from
from aerofuse.common.threads import in_new_thread
from aerofuse.memory.fake import FakeCopy, without_hooks
from aerofuse.memory.torch_private import tree_map

logger = logging.getLogger(__name__)

_FEW_SAMPLES = 2  # for normalisation

# The chains of a network, and the bytes that each unit of each saves.
_Found = tuple[tuple[FoundChain, ...], tuple[tuple[int, ...], ...]]


class ByPolicy:
    """Chooses the plans of chains by a policy; see `Chooser`."""

    def __init__(self, policy: RecomputeAll | Selective | OffloadAll | Segments, is_unit: IsUnit | None = None) -> None:
        self.policy, self._is_unit = policy, is_unit
        self._found: dict[Hashable, _Found] = {}

    def choose(self, network: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, compiled: bool) -> Chosen:  # noqa: ARG002
        """Return the chains of a network, and the plan of each."""
        key = kind_of(network, args, kwargs)
        if key not in self._found:
            self._found[key] = in_new_thread(partial(_find, network, args, kwargs, self._is_unit))
        chains, saved_bytes = self._found[key]
        return chains, tuple(map(self._plan, saved_bytes))

    def _plan(self, saved_bytes: Sequence[int]) -> ChainPlan:
        match self.policy:
            case RecomputeAll():
                return ChainPlan.recompute_all(len(saved_bytes))
            case Selective():
                return ChainPlan.selective(len(saved_bytes))
            case OffloadAll():
                return ChainPlan.offload_all(len(saved_bytes))
            case Segments(count):
                # A chain may be shorter, as those of which little learns are.
                return plan_segments(saved_bytes, min(count, len(saved_bytes)))


def _find(network: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], is_unit: IsUnit | None) -> _Found:
    try:
        with FakeCopy(network, gathered=True).active() as fake:
            return _summary(trace_chains(fake, *_each_tensor(_fake, args, kwargs), is_unit))
    except ValueError as error:
        logger.info("the units of %s are found on real tensors: %s", type(network).__name__, error)
    real = copy.deepcopy(network, without_hooks(network.modules()))
    with torch.random.fork_rng():
        return _summary(trace_chains(real, *_each_tensor(_few, args, kwargs), is_unit))


def trace_chains(
    network: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], is_unit: IsUnit | None = None
) -> list[TracedChain]:
    """Return the chains of a copy of a network, found in one pass, whose stand-ins for `forward` go."""
    for module in network.modules():
        remove_from(module)
    return find_chains(trace_calls(network, args, kwargs), is_unit)


def _summary(chains: list[TracedChain]) -> _Found:
    saved = tuple(tuple(sum(call.saved_bytes for call in unit) for unit in chain) for chain in chains)
    return names_of(chains), saved


def _each_tensor(
    change: Callable[[Tensor], Tensor], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return arguments with another tensor, which requires a gradient where it did, in the place of each."""

    def changed(leaf: Any) -> Any:
        return change(leaf).requires_grad_(leaf.requires_grad) if isinstance(leaf, Tensor) else leaf

    found: tuple[tuple[Any, ...], dict[str, Any]] = tree_map(changed, (args, dict(kwargs)))
    return found


def _fake(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device=tensor.device)


def _few(tensor: Tensor) -> Tensor:
    few = tensor.detach()
    return (few[:_FEW_SAMPLES] if few.ndim else few).clone()


def attach(network: nn.Module) -> Attached:
    """Return what a network carries, now where it has carried nothing before."""
    found = (attached for attached in attached_to(network) if attached.network is network)
    return next(found, None) or Attached(network)


def switch(network: nn.Module, chooser: Chooser) -> None:
    """Let `chooser` choose for the whole network from now on, in place of whatever chose for it or for parts of it."""
    for attached in attached_to(network):
        attached.choose_by(None)
    attach(network).choose_by(chooser)


@contextmanager
def without_checkpointing(network: nn.Module) -> Iterator[None]:
    """Switch all policies of a network and of its parts off for the length of the block."""
    paused = [attached for attached in attached_to(network) if not attached.is_paused]
    for attached in paused:
        attached.is_paused = True
    try:
        yield
    finally:
        for attached in paused:
            attached.is_paused = False
