"""A network as a chain of units: what a checkpointing plan speaks of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Unit:
    """One link of a chain, a function of one tensor.

    `modules` are those that it uses; a module may serve several units. A unit holds no state of its own: it is read
    from the network whenever it is needed, so that a copy of the network runs with its own weights.
    """

    name: str
    run: Callable[[Tensor], Tensor]
    modules: tuple[nn.Module, ...]

    @classmethod
    def of(cls, name: str, module: nn.Module) -> Unit:
        """The unit that is one module."""
        return cls(name, module, (module,))


Chain = Sequence[Unit]


def run_units(units: Iterable[Unit], inputs: Tensor) -> Tensor:
    """The output of a chain, every unit kept."""
    for unit in units:
        inputs = unit.run(inputs)
    return inputs


def modules_of(units: Iterable[Unit]) -> Iterator[nn.Module]:
    """Every module below the given units."""
    for unit in units:
        for module in unit.modules:
            yield from module.modules()
