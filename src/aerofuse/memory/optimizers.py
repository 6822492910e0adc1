"""The optimiser whose state and work a counted step has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

OptimizerName = Literal["adamw"]


@dataclass(frozen=True)
class OptimizerLike:
    """An optimiser of the class and the settings of another one, for the parameters of the same names."""

    kind: type[Optimizer]
    groups: tuple[tuple[dict[str, Any], tuple[str, ...]], ...]

    @classmethod
    def of(cls, optimizer: Optimizer, model: nn.Module) -> OptimizerLike:
        """Return the description of `optimizer`; parameters of other models are left out."""
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        groups = tuple(
            (
                {key: value for key, value in group.items() if key not in ("params", "param_names")},
                tuple(names[id(parameter)] for parameter in group["params"] if id(parameter) in names),
            )
            for group in optimizer.param_groups
        )
        if not any(parameters for _, parameters in groups):
            raise ValueError("the optimizer has no parameter of this model; give the one that trains it")
        return cls(type(optimizer), groups)

    def build(self, model: nn.Module) -> Optimizer:
        """Return the optimiser for `model`."""
        groups = [
            {**settings, "params": [model.get_parameter(name) for name in names]}
            for settings, names in self.groups
            if names
        ]
        try:
            return self.kind(groups)  # type: ignore[call-arg]  # torch's own take the settings from the groups
        except TypeError as error:
            raise ValueError(
                f"no {self.kind.__name__} can be made of its groups alone ({error}): give the bytes of its state per "
                "parameter as a number, such as optimizer=8.0"
            ) from error

    def __str__(self) -> str:
        """Return its name."""
        return self.kind.__name__.lower()


# By name; the bytes of state per parameter; like another one; none.
OptimizerChoice = OptimizerName | float | OptimizerLike | None


class _StateOfBytes(Optimizer):
    """State of so many bytes per parameter, and no work."""

    def __init__(self, parameters: Iterable[Tensor], bytes_per_parameter: float) -> None:
        super().__init__(parameters, {"bytes": bytes_per_parameter})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ARG002
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and not self.state[parameter]:
                    num_bytes = round(group["bytes"] * parameter.numel())
                    self.state[parameter]["state"] = torch.empty(num_bytes, dtype=torch.uint8, device=parameter.device)


def choose_optimizer(optimizer: object, model: nn.Module) -> OptimizerChoice:
    """Return what is meant by a name, a number of bytes per parameter, or an optimiser of `model`.

    Raises `ValueError` for anything else.
    """
    if isinstance(optimizer, Optimizer):
        return OptimizerLike.of(optimizer, model)
    is_number = type(optimizer) is not bool and isinstance(optimizer, Real) and float(optimizer) >= 0
    if optimizer is None or isinstance(optimizer, OptimizerLike) or is_number or optimizer in get_args(OptimizerName):
        return optimizer  # type: ignore[return-value]
    raise ValueError(
        f"optimizer is {optimizer!r}; it must be one of {', '.join(map(repr, (*get_args(OptimizerName), None)))}, an "
        "optimizer of torch, or the bytes of its state per parameter as a number"
    )


def build_optimizer(choice: OptimizerChoice, model: nn.Module) -> Optimizer | None:
    """Return the optimiser of `model`'s parameters that learn."""
    if choice is None:
        return None
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if isinstance(choice, OptimizerLike):
        return choice.build(model)
    return AdamW(learning) if choice == "adamw" else _StateOfBytes(learning, float(choice))
