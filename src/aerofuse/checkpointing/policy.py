"""The checkpointing policies: what a network saves for the backward pass.

Published ideas behind them: Chen and others, Training Deep Nets with Sublinear Memory Cost (arXiv 1604.06174), for
segments; PyTorch's selective activation checkpointing for saving what is expensive to compute.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

from torch import nn

from aerofuse.checkpointing.budget import Budget, parse_budget


@dataclass(frozen=True)
class RecomputeAll:
    """Save the input of each unit and compute each unit again: the least memory without a plan."""


@dataclass(frozen=True)
class Selective:
    """Save what is expensive to compute: the results of convolutions, matrix products and attention."""


@dataclass(frozen=True)
class OffloadAll:
    """Save everything, in host memory: it is copied back in the backward pass."""


@dataclass(frozen=True)
class Segments:
    """Cut the chain into `count` ranges that save about as many bytes, and compute all but the last again."""

    count: int


@dataclass(frozen=True)
class Scope:
    """The inputs that a plan is for: its peak holds for batches of at most this size."""

    input_shape: tuple[int, ...]
    precision: str

    def check(self, input_shape: Sequence[int], precision: str) -> None:
        """Raise `ValueError` for a larger batch, images of another size, or another precision."""
        if tuple(input_shape[1:]) != self.input_shape[1:]:
            raise ValueError(f"the plan is for inputs {list(self.input_shape)}, not {list(input_shape)}; plan again")
        if input_shape[0] > self.input_shape[0]:
            raise ValueError(
                f"the plan is for batches of up to {self.input_shape[0]}, not {input_shape[0]}; plan again"
            )
        if precision != self.precision:
            raise ValueError(f"the plan is for {self.precision}, not {precision}; plan again")


@dataclass(frozen=True)
class Structure:
    """The network that a plan is for: what its bytes depend on.

    `tensors` is a digest of the names, shapes and types of its parameters and buffers, `learning` says of each
    parameter whether it learns, as a hexadecimal number of as many bits.
    """

    tensors: str
    learning: str

    @classmethod
    def of(cls, network: nn.Module) -> Self:
        """Return the structure of `network` now."""
        learning = "".join(str(int(parameter.requires_grad)) for parameter in network.parameters())
        tensors = [
            (name, list(tensor.shape), str(tensor.dtype))
            for name, tensor in (*network.named_parameters(), *network.named_buffers())
        ]
        return cls(hashlib.sha256(json.dumps(tensors).encode()).hexdigest()[:32], f"{int(f'0{learning}', 2):x}")

    def check(self, found: Structure) -> None:
        """Raise `ValueError` for a network of other shapes or types, or of which more learns than was planned for."""
        if found.tensors != self.tensors:
            raise ValueError("the plan is for a network of other shapes or types of parameters; plan again")
        if int(found.learning, 16) & ~int(self.learning, 16):
            raise ValueError("the plan is for a network of which less learns; plan again")


# Under a budget, the fastest plan within it is made when the first batch is seen.
NamedPolicy = RecomputeAll | Selective | OffloadAll | Segments | Budget

Choice = TypeVar("Choice")

_BY_NAME: dict[str, NamedPolicy] = {"recompute_all": RecomputeAll(), "selective": Selective(), "offload": OffloadAll()}


def choose_policy(segments: int | None, policy: Choice | str | None, budget: object) -> NamedPolicy | Choice:
    """Return the one policy that is meant; `RecomputeAll` where nothing is given, `policy` itself unless it is a name.

    Raises `ValueError` for more than one of the three, an unknown name, and a budget that is none.
    """
    if sum(choice is not None for choice in (segments, policy, budget)) > 1:
        raise ValueError("segments, policy and budget each choose a policy; give one of them")
    if segments is not None:
        return Segments(segments)
    if budget is not None:
        return parse_budget(budget)
    if policy is None:
        return RecomputeAll()
    if not isinstance(policy, str):
        return policy
    if policy not in _BY_NAME:
        raise ValueError(
            f"unknown policy {policy!r}; known are {', '.join(_BY_NAME)}, besides segments=... and budget=...; "
            "disable_gradient_checkpointing() saves everything"
        )
    return _BY_NAME[policy]
