"""How long a unit would take on a device that is not at hand: estimated from arithmetic and memory traffic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from aerofuse.checkpointing.chain import Unit
from aerofuse.checkpointing.operations import MATRIX_PRODUCTS, CallNames, stack_shape, stacked_factors
from aerofuse.memory.step import Precision
from aerofuse.planning.clocks import Measured, Transfer, UnitSeconds
from aerofuse.planning.unit_bytes import Autocasting, TensorLike, make_inputs


@dataclass(frozen=True)
class Estimated:
    """Arithmetic and traffic counted call by call, divided by what a device is good for; runs on fake tensors.

    The rates are those that networks reach, not those of data sheets. Plans need their ratio more than their size.
    """

    flops_per_second: float
    bytes_per_second: float
    seconds_per_call: float = 1e-6
    host_bytes_per_second: float = 2e10

    def time_unit(
        self,
        unit: Unit,
        inputs: TensorLike,
        autocast: Autocasting,
        *,
        linked: bool = False,  # noqa: ARG002  # every call is estimated
        count: int = 1,  # noqa: ARG002  # and does not scatter
    ) -> UnitSeconds:
        """Return the same as `Measured` does, of a unit on fake tensors."""
        x = make_inputs(inputs, torch.zeros((), device=inputs.device, requires_grad=True))
        estimate = _Estimate(self)
        rerun = 0.0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal rerun
            rerun = sum(estimate.seconds.values())
            return tensor

        with autocast(), estimate, saved_tensors_hooks(pack, lambda tensor: tensor):
            unit.run(x)
        learns = any(parameter.requires_grad for module in unit.modules for parameter in module.parameters())
        # A product has two gradients of its own size; other calls read and write about half as much again.
        products = estimate.products * (int(inputs.requires_grad) + int(learns))
        forward = sum(estimate.seconds.values())
        backward = products + 1.5 * estimate.others
        selective = self.seconds_per_call * len(estimate.seconds)
        return UnitSeconds(forward, backward, rerun, forward, 0.0, selective, selective, estimate.seconds)

    def time_transfer(self, device: torch.device) -> Transfer:  # noqa: ARG002  # it is not at hand
        """Return how long bytes take to host memory and back."""
        return Transfer(1 / self.host_bytes_per_second, 1 / self.host_bytes_per_second, overlaps=True)


# Says how long a unit takes, and a byte on its way to host memory.
Stopwatch = Measured | Estimated

# What networks reach on one large GPU of the day. Estimated times depend on the ratio of the two rates, which differs
# little from one GPU to the next.
LARGE_GPU: Mapping[Precision, Estimated] = {"float32": Estimated(4e13, 1.5e12), "bf16": Estimated(2e14, 1.5e12)}


class _Estimate(TorchFunctionMode):
    """Estimates each call, by its name; `products` and `others` are sums: products of matrices, and the rest."""

    def __init__(self, rates: Estimated) -> None:
        super().__init__()
        self._rates = rates
        self._names = CallNames()
        self.seconds: dict[str, float] = {}
        self.products = self.others = 0.0

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        name = self._names.next(getattr(func, "__name__", ""))
        with FlopCounterMode(display=False) as counter:
            result = func(*args, **(kwargs or {}))
        results = result if isinstance(result, (list, tuple)) else (result,)
        read = [item.untyped_storage() for item in args if isinstance(item, Tensor)]
        made = [item.untyped_storage() for item in results if isinstance(item, Tensor)]
        function = name.partition(".")[0]
        is_view = all(any(new is old for old in read) for new in made) and not function.endswith("_")
        if not made or is_view:
            return result
        seconds = self._seconds(sum(storage.nbytes() for storage in (*read, *made)), counter.get_total_flops())
        self.seconds[name] = seconds
        if function in MATRIX_PRODUCTS:
            self.products += seconds
        else:
            self.others += seconds
        if function == "matmul":
            self._note_copies(name, stacked_factors(args, kwargs or {}) or {})
        return result

    def _seconds(self, moved_bytes: int, flops: int = 0) -> float:
        rates = self._rates
        return flops / rates.flops_per_second + moved_bytes / rates.bytes_per_second + rates.seconds_per_call

    def _note_copies(self, name: str, factors: Mapping[str, Tensor]) -> None:
        for side, factor in factors.items():
            storage = factor.reshape(stack_shape(factor)).untyped_storage()
            if storage is not factor.untyped_storage():
                self.seconds[f"{name}.{side}"] = seconds = self._seconds(2 * storage.nbytes())
                self.others += seconds
