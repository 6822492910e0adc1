"""What a network carries whose units run under plans: stand-ins for `forward` in itself and in the modules of units."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from aerofuse.checkpointing.compiled import CompiledFunction, Frames
from aerofuse.checkpointing.follow import Follower
from aerofuse.checkpointing.steps import ChainPlan
from aerofuse.checkpointing.tensors import tensors_in
from aerofuse.checkpointing.unit_calls import (
    FoundChain,
    Function,
    UnitForward,
    every_module,
    module_of,
    remove_from,
    stand_in_of,
)
from aerofuse.memory.torch_private import (
    in_function_transform,
    is_compiled,
    is_compiled_wrapper,
    outside_of_compiler,
    tree_flatten,
)

_COMPILED_PART = (
    "gradient checkpointing sees into the units of a network, and {} is compiled alone: torch.compile the whole "
    "network instead, or disable_gradient_checkpointing() first"
)


# The chains of a network, and the plan of each.
Chosen = tuple[Sequence[FoundChain], Sequence[ChainPlan]]


class Chooser(Protocol):
    """Says what the chains of a network are, and what is saved of each, for the inputs of a forward pass."""

    policy: Any

    def choose(self, network: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, compiled: bool) -> Chosen:
        """Return the chains of `network`, and the plan of each: for `compiled` units, or others.

        Raises `ValueError` for inputs that have none.
        """


class Attached:
    """Takes the calls of a network's units, and the network's own, while it is in training mode with gradients on.

    A copy of the network has a copy of it; what is under way in a forward pass is not copied.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.chooser: Chooser | None = None
        self.chains: tuple[FoundChain, ...] = ()
        self.plans: tuple[ChainPlan, ...] = ()
        self.is_paused = False  # run calls as they come
        self._follower: Follower | None = None
        self._compiler: Any = None  # of the forward pass under way
        self._frames = Frames()
        self._stand_in("")

    def choose_by(self, chooser: Chooser | None) -> None:
        """Let `chooser` name the chains and plans of every forward pass; `None`: save everything."""
        self.chooser = chooser
        if chooser is None:
            self.release()

    def follow(self, chains: Sequence[FoundChain], plans: Sequence[ChainPlan]) -> None:
        """Run the calls of these chains under these plans from now on."""
        is_same = (tuple(chains), tuple(plans)) == (self.chains, self.plans)
        if is_same and all(self._takes(self.network.get_submodule(name)) for name in self._module_names()):
            return
        self.release()
        self.chains, self.plans = tuple(chains), tuple(plans)
        for name in self._module_names():
            self._stand_in(name)

    def prepare(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any] = MappingProxyType({}), *, compiled: bool = False
    ) -> None:
        """Choose for a forward pass with these arguments, whose units will be `compiled`."""
        if self.chooser is not None:
            check_surroundings(self.network, tensors_in((args, dict(kwargs))))
            self.follow(*self.chooser.choose(self.network, args, kwargs, compiled=compiled))

    def release(self) -> None:
        """Run the calls as they come."""
        for module in self.network.modules():
            if module is not self.network and self._takes(module):
                remove_from(module)
        self.chains, self.plans, self._follower = (), (), None

    def take(self, call: str, function: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run one call. See `check_surroundings` for what is raised in a training step."""
        is_on = (self.chooser is not None or bool(self.chains)) and not self.is_paused
        if is_on and self.network.training and torch.is_grad_enabled():
            return self._step(call, function, args, kwargs)
        return function(*args, **kwargs)

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
            if "" in self._module_names():
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
            for name in self._module_names():
                _check_parts(name, self.network.get_submodule(name))
            self._follower = Follower(self.network, self.chains, self.plans)
        if compiler is not None:
            kind = kind_of(self.network.get_submodule(module_of(call)), args, kwargs)
            function = CompiledFunction(function, compiler, self._frames, (call.partition(":")[2], kind))
        return self._follower.take(call, function, args, kwargs)

    def _module_names(self) -> set[str]:
        return {module_of(call) for chain in self.chains for unit in chain for call in unit.calls}

    def _takes(self, module: nn.Module) -> bool:
        stand_in = stand_in_of(module)
        return stand_in is not None and stand_in.taker is self

    def _stand_in(self, name: str) -> None:
        module = self.network.get_submodule(name)
        if not self._takes(module):
            remove_from(module)
            module.forward = UnitForward(module, name, self)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is under way."""
        return vars(self) | {"_follower": None, "_compiler": None, "_frames": Frames()}


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


def check_surroundings(network: nn.Module, inputs: Iterable[Tensor]) -> None:
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


def _check_parts(name: str, module: nn.Module) -> None:
    for part_name, part in module.named_modules():
        if is_compiled(part) and part is not module:
            raise RuntimeError(_COMPILED_PART.format(f"{name}.{part_name}"))


def attached_to(network: nn.Module) -> list[Attached]:
    """Return what a network and parts of it carry, each once."""
    takers = (stand_in.taker for module in network.modules() if (stand_in := stand_in_of(module)) is not None)
    return list(dict.fromkeys(taker for taker in takers if isinstance(taker, Attached)))
