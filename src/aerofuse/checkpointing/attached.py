"""What a network carries whose units run under plans: stand-ins for `forward` in itself and in the modules of units."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from aerofuse.checkpointing.compiled import CompiledFunction, Frames
from aerofuse.checkpointing.follow import FollowedChain, Follower
from aerofuse.checkpointing.held import tensors_in
from aerofuse.checkpointing.steps import ChainPlan
from aerofuse.checkpointing.unit_calls import CallTaker, FoundUnit, Function, UnitForward, module_of
from aerofuse.memory.torch_private import (
    in_function_transform,
    is_compiled,
    is_compiled_wrapper,
    outside_of_compiler,
    tree_flatten,
)

FoundChain = tuple[FoundUnit, ...]

_COMPILED_PART = (
    "gradient checkpointing sees into the units of a network, and {} is compiled alone: torch.compile the whole "
    "network instead, or disable_gradient_checkpointing() first"
)


class Chooser(Protocol):
    """Says what the chains of a network are, and what is saved of each, for the inputs of a forward pass."""

    policy: Any

    def choose(
        self, network: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, compiled: bool
    ) -> tuple[Sequence[FoundChain], Sequence[ChainPlan]]:
        """Return the chains of `network`, and the plan of each: for `compiled` units, or others.

        Raises `ValueError` for inputs that have none.
        """


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
        self._compiler: Any = None  # of the forward pass under way
        self._frames = Frames()
        self._stand_in("")

    @property
    def network(self) -> nn.Module:
        """Return the network that carries this."""
        return self._network

    @property
    def acts(self) -> bool:
        """Return whether a call now is one of a training step with checkpointing."""
        is_on = (self.chooser is not None or bool(self.chains)) and not self._is_paused
        return is_on and self.network.training and torch.is_grad_enabled()

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

    def prepare(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any] = MappingProxyType({}), *, compiled: bool = False
    ) -> None:
        """Choose for a forward pass with these arguments, whose units will be `compiled`."""
        if self.chooser is not None:
            check_surroundings(self.network, tensors_in((args, kwargs)))
            self.follow(*self.chooser.choose(self.network, args, kwargs, compiled=compiled))

    def release(self) -> None:
        """Run the calls as they come."""
        for module in self.network.modules():
            if module is not self.network and taker_of(module) is self:
                remove_from(module)
        self.chains, self.plans, self._follower = (), (), None

    def take(self, call: str, function: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run one call. See `check_surroundings` for what is raised in a training step."""
        return self._step(call, function, args, kwargs) if self.acts else function(*args, **kwargs)

    @outside_of_compiler
    def _step(
        self, compiler: Any, call: str, function: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        if call:
            return self._take(compiler or self._compiler, call, function, args, kwargs)
        self.prepare(args, kwargs, compiled=compiler is not None)
        if self._follower is not None:
            self._follower.begin()
        self._compiler, before = compiler, self._compiler
        try:
            if "" in _module_names(self.chains):
                return self._take(compiler, "", function, args, kwargs)
            return function(*args, **kwargs)
        finally:
            self._compiler = before
            if self._follower is not None:
                self._follower.end()

    def _take(
        self, compiler: Any, call: str, function: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        if self._follower is None:
            modules = {name: self.network.get_submodule(name) for name in _module_names(self.chains)}
            _check_parts(modules)
            used = {id(part) for module in modules.values() for part in module.modules()}
            others = [module for module in self.network.modules() if id(module) not in used]
            chains = zip(self.chains, self.plans, strict=True)
            self._follower = Follower([FollowedChain(*chain, modules) for chain in chains], others)
        if compiler is not None:
            kind = kind_of(self.network.get_submodule(module_of(call)), args, kwargs)
            function = CompiledFunction(function, compiler, self._frames.frame((call.partition(":")[2], kind)))
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
        return vars(self) | {"_follower": None, "_compiler": None, "_frames": Frames()}


def every_module(network: nn.Module) -> list[nn.Module]:
    """Return the modules of a network, each once, parents first; faster than `network.modules()`."""
    found: dict[nn.Module, None] = {network: None}
    for module in (waiting := [network]):  # grows on the way
        for child in module._modules.values():
            if child is not None and child not in found:
                found[child] = None
                waiting.append(child)
    return waiting


def kind_of(network: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Hashable:
    """Return what the units of a network or of a part of it, and the bytes of a sample, depend on."""
    found = every_module(network)  # in each training step, so not by names
    modules = tuple((type(module), module.training) for module in found)
    parameters = tuple(
        (one.shape, one.dtype, one.device, one.requires_grad)
        for module in found
        for one in module._parameters.values()
        if one is not None
    )
    leaves, _ = tree_flatten((args, dict(kwargs)))
    inputs = tuple(
        (tuple(leaf.shape[1:]), leaf.dtype, leaf.device, leaf.requires_grad) if isinstance(leaf, Tensor) else type(leaf)
        for leaf in leaves
    )
    return modules, parameters, inputs


def check_surroundings(network: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Raise `RuntimeError` or `ValueError` where checkpointing does not work."""
    if torch.compiler.is_exporting():
        raise RuntimeError(
            "a network is exported with gradient checkpointing on: disable_gradient_checkpointing() first"
        )
    if (wrapped := next(filter(is_compiled_wrapper, every_module(network)), None)) is not None:
        raise RuntimeError(_COMPILED_PART.format(f"a {type(wrapped._orig_mod).__name__}"))
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


def _check_parts(units: Mapping[str, nn.Module]) -> None:
    for name, module in units.items():
        for part_name, part in module.named_modules():
            if is_compiled(part) and part is not module:
                raise RuntimeError(_COMPILED_PART.format(f"{name}.{part_name}"))


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
