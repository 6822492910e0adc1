"""A network as a chain of units, and running it under a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from aerofuse.checkpointing.recompute import run_recomputed
from aerofuse.checkpointing.selective import run_selective
from aerofuse.checkpointing.steps import Recompute, SaveAll, SaveSome, Step, units_of


@dataclass(frozen=True)
class Unit:
    """One link of a chain, a function of one tensor.

    `modules` are those that it uses; a module may serve several units. A unit has no state of its own: it is read
    from the network whenever it is needed, so that a copy of the network runs with its own weights.
    """

    name: str
    run: Callable[[Tensor], Tensor]
    modules: tuple[nn.Module, ...]

    @classmethod
    def of(cls, name: str, module: nn.Module) -> Unit:
        """Return the unit that is one module."""
        return cls(name, module, (module,))


Chain = Sequence[Unit]


def run_units(units: Iterable[Unit], inputs: Tensor) -> Tensor:
    """Return the output of a chain without checkpointing."""
    for unit in units:
        inputs = unit.run(inputs)
    return inputs


def modules_of(units: Iterable[Unit]) -> Iterator[nn.Module]:
    """Yield every module below the given units."""
    for unit in units:
        for module in unit.modules:
            yield from module.modules()


def run_steps(chain: Chain, others: Sequence[nn.Module], steps: Sequence[Step], inputs: Tensor) -> Tensor:
    """Return the output of `chain`, the same bits as without a plan; what the steps name is saved for the backward.

    The steps are such as a range may have. `others` are modules that belong to no unit, and have parameters or buffers
    that units read.
    """
    for step in steps:
        if isinstance(step, Recompute):
            units = [chain[index] for index in units_of(step.steps)]
            inputs = run_recomputed(
                partial(run_units, units),
                partial(run_steps, chain, others, step.steps),
                (*modules_of(units), *others),
                inputs,
                units[0].name if len(units) == 1 else f"{units[0].name} to {units[-1].name}",
            )
        elif isinstance(step, SaveAll):
            inputs = chain[step.unit].run(inputs)
        else:
            assert isinstance(step, SaveSome)  # for nothing is offloaded in a range
            first, *following = (chain[index].run for index in units_of([step]))
            inputs = run_selective(first, inputs, step.save, step.no_cache, linked=following)
    return inputs
