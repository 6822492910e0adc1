"""Runs the calls of a network's units under the plans of its chains, while the network's own forward pass makes them.

The calls of one step of a plan, such as a range that is computed again, come one by one. A call belongs to the step
under way where it takes what the call before it has returned, which nobody has written to in between. Else that step
ends, and another one begins. So it does not matter what else the network does: a plan that does not fit costs memory,
and never a bit.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from torch import Tensor, nn

from aerofuse.checkpointing.chain import Unit, run_steps
from aerofuse.checkpointing.compiled import CompiledFunction
from aerofuse.checkpointing.held import HeldCall, ModuleCall, Returned, tensors_in
from aerofuse.checkpointing.offload import OffloadedCall
from aerofuse.checkpointing.recompute import Range, is_recomputing
from aerofuse.checkpointing.recompute_nodes import Layout, layout_of
from aerofuse.checkpointing.selective import SelectiveRun
from aerofuse.checkpointing.steps import (
    ChainPlan,
    Offload,
    Recompute,
    SaveAll,
    SaveSome,
    Step,
    between,
    selective_steps,
    units_of,
)
from aerofuse.checkpointing.unit_calls import FoundUnit, Function, module_of


@dataclass(frozen=True, eq=False)
class FollowedChain:
    """A chain of a network, the modules of its calls, and the plan to follow.

    Raises `ValueError` where the plan is for another number of units.
    """

    units: tuple[FoundUnit, ...]
    plan: ChainPlan
    modules: Mapping[str, nn.Module]

    def __post_init__(self) -> None:
        if self.plan.num_units != len(self.units):
            raise ValueError(
                f"a plan for {self.plan.num_units} units cannot be followed by a chain of {len(self.units)}"
            )

    @cached_property
    def calls(self) -> list[tuple[str, int]]:
        """Return the calls in order, each with the index of its unit."""
        return [(call, index) for index, unit in enumerate(self.units) for call in unit.calls]

    @cached_property
    def steps(self) -> list[tuple[Step, int, int]]:
        """Return the steps of the plan, each with the indices of its first unit and of that after its last."""
        found = []
        for step in self.plan.steps:
            units = list(units_of([step]))
            found.append((step, units[0], units[-1] + 1))
        return found

    def seen_into(self) -> Iterator[str]:
        """Yield the calls of which chosen results are saved, now or when they run again: they are not compiled."""
        for step in self.plan.steps:
            for some in selective_steps([step]):
                if some is not step or some.save is not None:
                    yield from (call for unit in units_of([some]) for call in self.units[unit].calls)

    @cached_property
    def offloaded(self) -> set[int]:
        """Return the indices of the units whose saved tensors wait in host memory."""
        return {step.unit for step in self.plan.steps if isinstance(step, Offload)}


@dataclass(frozen=True)
class _Place:
    """A call of a chain, by its index there."""

    chain: FollowedChain
    index: int

    @property
    def call(self) -> str:
        return self.chain.calls[self.index][0]

    @property
    def unit(self) -> int:
        return self.chain.calls[self.index][1]

    @property
    def begins_unit(self) -> bool:
        return self.index == 0 or self.chain.calls[self.index - 1][1] != self.unit

    def next(self) -> _Place:
        return _Place(self.chain, self.index + 1)


class Follower:
    """Takes the calls of units; see `CallTaker`. `others` are modules of no unit whose tensors units may read."""

    def __init__(self, chains: Sequence[FollowedChain], others: Sequence[nn.Module]) -> None:
        self._others = others
        self._places: dict[str, list[_Place]] = {}
        for chain in chains:
            for index, (call, _) in enumerate(chain.calls):
                self._places.setdefault(call, []).append(_Place(chain, index))
        # Of a module that is called several times, no call is compiled, or all: each writes over its statistics.
        self._seen_into = frozenset(call for chain in chains for call in chain.seen_into())
        self._expected: _Place | None = None
        self._under_way: _StepRun | None = None
        self._is_inside = False
        self._offloaded: OffloadedCall | None = None

    def begin(self) -> None:
        """A forward pass of the whole network begins."""
        self.end()
        self._expected = None
        self._offloaded = None

    def end(self) -> None:
        """No call of the step under way will come any more."""
        if self._under_way is not None:
            self._under_way.end()
            self._under_way = None

    def take(self, name: str, function: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run one call. One that is made inside of another, or is computed again, is none of a unit."""
        if self._is_inside or is_recomputing():
            return function(*args, **kwargs)
        place = self._find(name)
        self._is_inside = True
        try:
            return function(*args, **kwargs) if place is None else self._run(place, ModuleCall(function, args, kwargs))
        except BaseException:
            self.end()
            raise
        finally:
            self._is_inside = False

    def _find(self, name: str) -> _Place | None:
        """Return the place of a call of that name: the expected one, or else the next one in the network."""
        places = self._places.get(name, [])
        expected = self._expected
        if expected is None or not places or expected in places:
            return expected if expected in places else next(iter(places), None)
        later = (one for one in places if one.chain is expected.chain and one.index > expected.index)
        return next(later, places[0])

    def _run(self, place: _Place, call: ModuleCall) -> Any:
        if isinstance(call.function, CompiledFunction) and place.call in self._seen_into:
            call = replace(call, function=call.function.plain)
        inputs = call.tensors()
        flow = None if self._under_way is None or place != self._expected else self._under_way.flow_into(inputs)
        if flow is None:
            self.end()
            self._under_way = self._begin(place, call)
        self._expected = place.next()
        before, self._offloaded = self._offloaded, None
        if self._under_way is not None:
            results = self._add(self._under_way, place, flow, call)
        elif place.unit in place.chain.offloaded:
            results = self._offload(place, call, before)
        else:
            results = call.run()
        if before is not None:
            before.leave(tensors_in(results))
        return results

    def _offload(self, place: _Place, call: ModuleCall, before: OffloadedCall | None) -> Any:
        module = place.chain.modules[module_of(place.chain.calls[place.index][0])]
        self._offloaded = OffloadedCall([module], call.tensors(), before)
        with self._offloaded.saving():
            return call.run()

    def _add(self, step: _StepRun, place: _Place, flow: _HandedOver | None, call: ModuleCall) -> Any:
        """Run a call as one of a step."""
        x = step.take_first_input() if flow is None else flow.tensor
        source = None if flow is None else (flow.number, flow.layout)
        if place.begins_unit and flow is not None:
            step.begin_unit(x)
        held = HeldCall(place.call, call, x, source)
        with step.taking(place.unit, held):
            results = call.run()
        held.offer()
        outputs = tensors_in(results)
        step.note(outputs)
        if place.index + 1 == step.end_index:
            self.end()
        else:
            step.end_before_its_backward(outputs)
        return results

    def _begin(self, place: _Place, call: ModuleCall) -> _StepRun | None:
        """Return the row that begins with a call, none where all of it is saved, or the compiler chooses."""
        chain = place.chain
        step, _, end = next(found for found in chain.steps if found[1] <= place.unit < found[2])
        x = _main_input(call.tensors())
        if isinstance(step, (SaveAll, Offload)) or x is None:
            return None
        if isinstance(step, SaveSome) and step.save is None and isinstance(call.function, CompiledFunction):
            return None  # a compiler saves what is expensive, too
        end_index = sum(len(unit.calls) for unit in chain.units[:end])
        if isinstance(step, SaveSome) and place.begins_unit:
            return _SelectiveStepRun(end_index, x, step)
        if isinstance(step, SaveSome):  # it was begun in the middle, and the calls to save are named from its start
            end_index = sum(len(unit.calls) for unit in chain.units[: place.unit + 1])
            step = Recompute((SaveAll(place.unit),))
        return _RecomputedStepRun(end_index, x, step, place, self._others)


def _main_input(inputs: Sequence[Tensor]) -> Tensor | None:
    """Return the tensor that a row saves as its input: the largest that requires a gradient, or the largest."""
    return max(inputs, key=lambda tensor: (tensor.requires_grad, tensor.nbytes), default=None)


@dataclass(frozen=True)
class _HandedOver:
    """An input that is an output of the call before: the how manieth, and as what view."""

    tensor: Tensor
    number: int
    layout: Layout | None


class _StepRun(ABC):
    """The calls of one step of a plan, as they come. `end_index` is that after the last in the chain."""

    def __init__(self, end_index: int, x: Tensor) -> None:
        self.end_index = end_index
        self._first_input: list[Tensor] = [x]
        self._returned: list[Returned] = []

    def take_first_input(self) -> Tensor:
        """Return the input of the first call, which is not held any longer."""
        return self._first_input.pop()

    def note(self, outputs: Sequence[Tensor]) -> None:
        """Remember what a call has returned."""
        self._returned = [Returned.of(tensor) for tensor in outputs]

    def flow_into(self, inputs: Sequence[Tensor]) -> _HandedOver | None:
        """Return what flows from the last call into one with these inputs."""
        for tensor in inputs:
            for number, returned in enumerate(self._returned):
                if returned.flows_into(tensor):
                    return _HandedOver(tensor, number, None if returned.tensor() is tensor else layout_of(tensor))
        return None

    def end_before_its_backward(self, outputs: Sequence[Tensor]) -> None:
        """End the row at the latest when the backward pass comes to these tensors."""
        alive = weakref.ref(self)
        for output in outputs:
            if output.grad_fn is not None:
                output.grad_fn.register_prehook(lambda _: None if (found := alive()) is None else found.end())

    @abstractmethod
    def begin_unit(self, x: Tensor) -> None:
        """Another unit of the row begins, with `x`."""

    @abstractmethod
    def taking(self, unit: int, held: HeldCall) -> AbstractContextManager[None]:
        """Return the context for a call of the row, which is one of that unit."""

    @abstractmethod
    def end(self) -> None:
        """No further call will come."""


class _SelectiveStepRun(_StepRun):
    def __init__(self, end_index: int, x: Tensor, step: SaveSome) -> None:
        super().__init__(end_index, x)
        self._selective = SelectiveRun(x, step.save, step.no_cache)

    def begin_unit(self, x: Tensor) -> None:
        self._selective.link(x)

    def taking(self, unit: int, held: HeldCall) -> AbstractContextManager[None]:  # noqa: ARG002
        return self._selective.part()

    def end(self) -> None:
        alive = (returned.tensor() for returned in self._returned)
        self._selective.settle(next((tensor for tensor in alive if tensor is not None), None))


class _RecomputedStepRun(_StepRun):
    def __init__(self, end_index: int, x: Tensor, step: Step, place: _Place, others: Sequence[nn.Module]) -> None:
        super().__init__(end_index, x)
        self._replay = _Replay(step, place, others)
        chain = place.chain
        calls = [chain.calls[index][0] for index in range(place.index, end_index)]
        modules = [module for call in calls for module in chain.modules[module_of(call)].modules()]
        self._range = Range(self._replay.run, (*modules, *others), x, FoundUnit(tuple(calls)).name)

    def begin_unit(self, x: Tensor) -> None:
        """Nothing is to do."""

    def taking(self, unit: int, held: HeldCall) -> AbstractContextManager[None]:
        self._replay.held.append((unit, held))
        return self._range.first_run()

    def note(self, outputs: Sequence[Tensor]) -> None:
        super().note(outputs)
        self._range.end(outputs)

    def end_before_its_backward(self, outputs: Sequence[Tensor]) -> None:
        """Nothing is to do."""

    def end(self) -> None:
        """Nothing is to do."""


class _Replay:
    """The calls of a range that is computed again, from the first on. It must not know its run: a cycle lives long."""

    def __init__(self, step: Step, first: _Place, others: Sequence[nn.Module]) -> None:
        self._step, self._first, self._others = step, first, others
        self.held: list[tuple[int, HeldCall]] = []

    def run(self, x: Tensor) -> Tensor:
        first, last = self.held[0][0], self.held[-1][0]
        units = [self._unit(unit) for unit in range(first, last + 1)]
        step = self._step
        steps = between(step.steps if isinstance(step, Recompute) else (step,), first, last + 1)
        if not self._first.begins_unit:  # the calls to save are named from the unit's start
            steps = tuple(_saving_all_of_first(steps))
        return run_steps(units, self._others, steps, x)

    def _unit(self, number: int) -> Unit:
        calls = [held for unit, held in self.held if unit == number]
        following = next((held for unit, held in self.held if unit > number), None)
        modules = tuple(self._first.chain.modules[module_of(held.name)] for held in calls)
        return Unit(self._first.chain.units[number].name, partial(_run_calls, calls, following), modules)


def _saving_all_of_first(steps: Sequence[Step]) -> Iterator[Step]:
    for step in steps:
        if isinstance(step, Recompute):
            yield Recompute(tuple(_saving_all_of_first(step.steps)))
        elif isinstance(step, SaveSome) and step.unit == 0:
            yield SaveAll(0)
            if step.count > 1:
                yield SaveSome(1, step.save, step.no_cache, step.count - 1)
        else:
            yield step


def _run_calls(calls: Sequence[HeldCall], following: HeldCall | None, x: Tensor) -> Tensor:
    """Return what flows out of a unit into the call that follows it."""
    results: Any = None
    for number, call in enumerate(calls):
        results = call.run(x if number == 0 else call.pick(results))
    return tensors_in(results)[0] if following is None else following.pick(results)
