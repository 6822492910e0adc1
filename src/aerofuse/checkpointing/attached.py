"""What a network carries whose units run under plans: stand-ins for `forward` in itself and in the modules of units."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from aerofuse.checkpointing.follow import FollowedChain, Follower
from aerofuse.checkpointing.held import tensors_in
from aerofuse.checkpointing.steps import ChainPlan
from aerofuse.checkpointing.unit_calls import CallTaker, FoundUnit, Function, UnitForward, module_of
from aerofuse.memory.torch_private import in_function_transform, is_compiled, not_compiled

FoundChain = tuple[FoundUnit, ...]


class Chooser(Protocol):
    """Says what the chains of a network are, and what is saved of each, for the inputs of a forward pass."""

    policy: Any

    def choose(
        self, network: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[Sequence[FoundChain], Sequence[ChainPlan]]:
        """Return the chains of `network`, and the plan of each. Raises `ValueError` for inputs that have none."""


class Attached:
    """Takes the calls of a network's units, and the network's own, while it is in training mode with gradients on.

    A copy of the network has a copy of it; what is under way in a forward pass is not copied.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self.chooser: Chooser | None = None
        self._is_paused = False
        self.chains: tuple[FoundChain, ...] = ()
        self.plans: tuple[ChainPlan, ...] = ()
        self._follower: Follower | None = None
        self._stand_in("")

    @property
    def network(self) -> nn.Module:
        """Return the network that carries this."""
        return self._network

    @property
    def acts(self) -> bool:
        """Return whether a call now is one of a training step."""
        return not self._is_paused and self.network.training and torch.is_grad_enabled()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Run calls as they come for the length of the block."""
        self._is_paused, before = True, self._is_paused
        try:
            yield
        finally:
            self._is_paused = before

    def choose_by(self, chooser: Chooser | None) -> None:
        """Let `chooser` name the chains and plans of every forward pass; `None`: save everything."""
        self.chooser = chooser
        if chooser is None:
            self.release()

    def follow(self, chains: Sequence[FoundChain], plans: Sequence[ChainPlan]) -> None:
        """Run the calls of these chains under these plans from now on."""
        if (tuple(chains), tuple(plans)) == (self.chains, self.plans) and self._is_in_place():
            return
        self.release()
        self.chains, self.plans = tuple(chains), tuple(plans)
        for name in _module_names(self.chains):
            self._stand_in(name)

    def prepare(self, args: tuple[Any, ...], kwargs: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Choose for a forward pass with these arguments."""
        if self.chooser is not None:
            check_surroundings(self.network, tensors_in((args, kwargs)))
            self.follow(*self.chooser.choose(self.network, args, kwargs))

    def release(self) -> None:
        """Run the calls as they come."""
        for module in self.network.modules():
            if module is not self.network and taker_of(module) is self:
                remove_from(module)
        self.chains, self.plans, self._follower = (), (), None

    def take(self, call: str, function: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run one call. See `check_surroundings` for what is raised in a training step."""
        if call:
            return self._take(call, function, args, kwargs) if self.acts else function(*args, **kwargs)
        if not self.acts:
            return function(*args, **kwargs)
        self.prepare(args, kwargs)
        if self._follower is not None:
            self._follower.begin()
        try:
            return (self._take if "" in _module_names(self.chains) else _run)("", function, args, kwargs)
        finally:
            if self._follower is not None:
                self._follower.end()

    def _take(self, call: str, function: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if self._follower is None:
            modules = {name: self.network.get_submodule(name) for name in _module_names(self.chains)}
            used = {id(part) for module in modules.values() for part in module.modules()}
            others = [module for module in self.network.modules() if id(module) not in used]
            chains = zip(self.chains, self.plans, strict=True)
            self._follower = Follower([FollowedChain(*chain, modules) for chain in chains], others)
        return self._follower.take(call, function, args, kwargs)

    def _stand_in(self, name: str) -> None:
        module = self.network.get_submodule(name)
        if taker_of(module) is not self:
            remove_from(module)
            module.forward = UnitForward(module, name, self)

    def _is_in_place(self) -> bool:
        names = _module_names(self.chains)
        return all(taker_of(self.network.get_submodule(name)) is self for name in names)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is under way."""
        return vars(self) | {"_follower": None}


def every_module(network: nn.Module) -> list[nn.Module]:
    """Return the modules of a network, each once, parents first; faster than `network.modules()`."""
    found: dict[nn.Module, None] = {network: None}
    for module in (waiting := [network]):  # grows on the way
        for child in module._modules.values():
            if child is not None and child not in found:
                found[child] = None
                waiting.append(child)
    return waiting


def check_surroundings(network: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Raise `RuntimeError` or `ValueError` where checkpointing does not work."""
    if torch.compiler.is_compiling() or any(map(is_compiled, every_module(network))):
        refuse_compilation()
    if in_function_transform():
        raise RuntimeError(
            "gradient checkpointing does not work under transforms of torch.func, such as grad, vmap and jvp: "
            "disable_gradient_checkpointing() first, or use torch.autograd.grad"
        )
    if any(tensor.is_inference() for tensor in inputs):
        raise ValueError(
            "the inputs were made in inference_mode, so that nothing can be saved of them for the backward pass: "
            "give inputs.clone(), made outside of it"
        )


@not_compiled
def refuse_compilation() -> None:
    """Raise `RuntimeError`, also from within compiled code."""
    raise RuntimeError(
        "gradient checkpointing and torch.compile do not work together yet: disable_gradient_checkpointing() first, or "
        "do not compile this network and its parts"
    )


def _run(_: str, function: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return function(*args, **kwargs)


def _module_names(chains: Iterable[FoundChain]) -> set[str]:
    return {module_of(call) for chain in chains for unit in chain for call in unit.calls}


def taker_of(module: nn.Module) -> CallTaker | None:
    """Return who takes the calls of a module, if anybody does."""
    stand_in = vars(module).get("forward")
    return stand_in.taker if isinstance(stand_in, UnitForward) else None


def remove_from(module: nn.Module) -> None:
    """Give a module its own `forward` back."""
    stand_in = vars(module).get("forward")
    if isinstance(stand_in, UnitForward):
        if stand_in.override is None:
            del module.forward
        else:
            module.forward = stand_in.override


def attached_to(network: nn.Module) -> list[Attached]:
    """Return what a network and parts of it carry, each once."""
    takers = (taker_of(module) for module in network.modules())
    return list(dict.fromkeys(taker for taker in takers if isinstance(taker, Attached)))
