"""From a policy that needs no planner to the plans of a network's chains: its units are found when a batch is seen."""

from __future__ import annotations

import copy
import logging
from collections.abc import Hashable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from aerofuse.checkpointing.attached import Attached, Chooser, FoundChain, attached_to, kind_of, remove_from
from aerofuse.checkpointing.call_trace import trace_calls
from aerofuse.checkpointing.find_units import IsUnit, TracedChain, find_chains, names_of
from aerofuse.checkpointing.policy import OffloadAll, RecomputeAll, Segments, Selective
from aerofuse.checkpointing.segments import plan_segments
from aerofuse.checkpointing.steps import ChainPlan
from aerofuse.common.threads import in_new_thread
from aerofuse.memory.fake import FakeCopy, without_hooks
from aerofuse.memory.torch_private import tree_map

logger = logging.getLogger(__name__)

_FEW_SAMPLES = 2  # for normalisation


@dataclass(frozen=True)
class _FoundChains:
    """The chains of a network, and the bytes that each of their units saves."""

    chains: tuple[FoundChain, ...]
    saved_bytes: tuple[tuple[int, ...], ...]


class ByPolicy:
    """Chooses the plans of chains by a policy; see `Chooser`."""

    def __init__(self, policy: RecomputeAll | Selective | OffloadAll | Segments, is_unit: IsUnit | None = None) -> None:
        self.policy, self._is_unit = policy, is_unit
        self._found: dict[Hashable, _FoundChains] = {}

    def choose(
        self,
        network: nn.Module,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        compiled: bool,  # noqa: ARG002  # makes no difference
    ) -> tuple[tuple[FoundChain, ...], tuple[ChainPlan, ...]]:
        """Return the chains of a network, and the plan of each."""
        key = kind_of(network, args, kwargs)
        if key not in self._found:
            find = partial(_find, network, args, kwargs, self._is_unit)
            self._found[key] = in_new_thread(find)
        found = self._found[key]
        match self.policy:
            case RecomputeAll():
                return found.chains, tuple(ChainPlan.recompute_all(len(chain)) for chain in found.chains)
            case Selective():
                return found.chains, tuple(ChainPlan.selective(len(chain)) for chain in found.chains)
            case OffloadAll():
                return found.chains, tuple(ChainPlan.offload_all(len(chain)) for chain in found.chains)
            case Segments(count):
                # A chain may be shorter, as those of which little learns are.
                sizes = found.saved_bytes
                return found.chains, tuple(plan_segments(saved, min(count, len(saved))) for saved in sizes)


def _find(network: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], is_unit: IsUnit | None) -> _FoundChains:
    try:
        with FakeCopy(network, gathered=True).active() as fake:
            return _summary(trace_chains(fake, _fake(args), _fake(kwargs), is_unit))
    except ValueError as error:
        logger.info("the units of %s are found on real tensors: %s", type(network).__name__, error)
    real = copy.deepcopy(network, without_hooks(network.modules()))
    with torch.random.fork_rng():
        return _summary(trace_chains(real, _few(args), _few(kwargs), is_unit))


def trace_chains(
    network: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], is_unit: IsUnit | None = None
) -> list[TracedChain]:
    """Return the chains of a copy of a network, found in one pass, whose stand-ins for `forward` go."""
    for module in network.modules():
        remove_from(module)
    return find_chains(trace_calls(network, args, kwargs), is_unit)


def _summary(chains: list[TracedChain]) -> _FoundChains:
    saved = tuple(tuple(sum(call.saved_bytes for call in unit) for unit in chain) for chain in chains)
    return _FoundChains(names_of(chains), saved)


def _fake(tree: Any) -> Any:
    def make(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        twin = torch.empty_strided(leaf.size(), leaf.stride(), dtype=leaf.dtype, device=leaf.device)
        return twin.requires_grad_(leaf.requires_grad)

    return tree_map(make, tree)


def _few(tree: Any) -> Any:
    def take(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        few = leaf.detach()[:_FEW_SAMPLES] if leaf.ndim else leaf.detach()
        return few.clone().requires_grad_(leaf.requires_grad)

    return tree_map(take, tree)


def attach(network: nn.Module) -> Attached:
    """Return what a network carries, now where it has carried nothing before."""
    found = (attached for attached in attached_to(network) if attached.network is network)
    return next(found, None) or Attached(network)


def switch(network: nn.Module, chooser: Chooser | None) -> None:
    """Let `chooser` choose for the whole network from now on, in place of whatever chose for it or for parts of it."""
    for attached in attached_to(network):
        attached.choose_by(None)
    attach(network).choose_by(chooser)


@contextmanager
def without_checkpointing(network: nn.Module) -> Iterator[None]:
    """Switch all policies of a network and of its parts off for the length of the block."""
    with ExitStack() as stack:
        for attached in attached_to(network):
            stack.enter_context(attached.paused())
        yield
