"""Runs the calls of a network's units under the plans of its chains, while the network's own forward pass makes them.

The calls of one step of a plan, such as a range that is computed again, come one by one. A call belongs to the step
under way where it takes what the call before it has returned, which nobody has written to in between. Else that step
ends, and another one begins. So it does not matter what else the network does: a plan that does not fit costs memory,
and never a bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from aerofuse.checkpointing.chain import Unit, run_steps
from aerofuse.checkpointing.compiled import CompiledFunction
from aerofuse.checkpointing.held import Flow, HeldCall, ModuleCall, Returned, arguments_of
from aerofuse.checkpointing.offload import OffloadedCall
from aerofuse.checkpointing.recompute import Range
from aerofuse.checkpointing.recorder import CallRecorder
from aerofuse.checkpointing.saved_tensors import before_backward, is_recomputing
from aerofuse.checkpointing.snapshot import running_statistics
from aerofuse.checkpointing.steps import (
    ChainPlan,
    Offload,
    Recompute,
    SaveAll,
    SaveSome,
    Step,
    between,
    units_of,
    units_seen_into,
)
from aerofuse.checkpointing.tensors import tensors_in
from aerofuse.checkpointing.unit_calls import FoundUnit, Function, every_module, module_of
from aerofuse.memory.torch_private import is_inductor


@dataclass(frozen=True, eq=False)
class _Place:
    """A call of a chain: its unit, and the step of the plan that the unit is in."""

    call: str
    module: nn.Module
    unit: int
    begins_unit: bool
    step: Step
    is_seen_into: bool
    is_left_to_compiler: bool
    chain: Sequence[_Place]
    index: int

    @property
    def following(self) -> _Place | None:
        return self.chain[self.index + 1] if self.index + 1 < len(self.chain) else None

    def rest(self) -> list[_Place]:
        """Return the calls of the step from here on; where this is in the middle of a unit, those of the unit."""
        later = self.chain[self.index :]
        return [place for place in later if place.step is self.step and (self.begins_unit or place.unit == self.unit)]


def _places(units: Sequence[FoundUnit], plan: ChainPlan, network: nn.Module) -> Sequence[_Place]:
    if plan.num_units != len(units):
        raise ValueError(f"a plan for {plan.num_units} units cannot be followed by a chain of {len(units)}")
    steps = {unit: step for step in plan.steps for unit in units_of([step])}
    seen_into = set(units_seen_into(plan.steps))
    places: list[_Place] = []
    for number, unit in enumerate(units):
        for position, call in enumerate(unit.calls):
            module = network.get_submodule(module_of(call))
            place = _Place(
                call,
                module,
                number,
                begins_unit=position == 0,
                step=steps[number],
                is_seen_into=number in seen_into,
                is_left_to_compiler=_is_left_to_compiler(unit, module, steps[number]),
                chain=places,
                index=len(places),
            )
            places.append(place)
    return places


def _is_left_to_compiler(unit: FoundUnit, module: nn.Module, step: Step) -> bool:
    """Return whether Inductor can compute a unit again: one of one call, alone in its range, that has no statistics.

    Its second run would need those of before, which the next forward pass writes over. Other compilers may draw other
    random numbers in the second run.
    """
    is_alone = isinstance(step, Recompute) and len(step.steps) == 1 and isinstance(step.steps[0], SaveAll)
    return is_alone and len(unit.calls) == 1 and not running_statistics(module.modules())


class Follower:
    """Takes the calls of units; see `CallTaker`. Raises `ValueError` for a plan for another number of units."""

    def __init__(self, network: nn.Module, chains: Sequence[Sequence[FoundUnit]], plans: Sequence[ChainPlan]) -> None:
        self._places: dict[str, list[_Place]] = {}
        for units, plan in zip(chains, plans, strict=True):
            for place in _places(units, plan, network):
                self._places.setdefault(place.call, []).append(place)
        used = {part for places in self._places.values() for part in places[0].module.modules()}
        # Modules of no unit whose tensors units may read.
        self._others = [module for module in network.modules() if module not in used]
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
        place = None if self._is_inside or is_recomputing() else self._find(name)
        if place is None:
            return function(*args, **kwargs)
        self._is_inside = True
        try:
            return self._run(place, partial(function, *args, **kwargs))
        except BaseException:
            self.end()
            raise
        finally:
            self._is_inside = False

    def _find(self, name: str) -> _Place | None:
        """Return the place of a call of that name: the expected one, or else the next one in the network."""
        places = self._places.get(name, [])
        expected = self._expected
        if expected is None or expected in places:
            return expected or next(iter(places), None)
        later = (one for one in places if one.chain is expected.chain and one.index > expected.index)
        return next(later, next(iter(places), None))

    def _run(self, place: _Place, call: ModuleCall) -> Any:
        # Of a module that is called several times, no call is compiled, or all: each writes over its statistics.
        is_seen_into = any(one.is_seen_into for one in self._places[place.call])
        if isinstance(function := call.func, CompiledFunction):
            if is_seen_into:
                call = partial(function.plain, *call.args, **call.keywords)
            elif place.is_left_to_compiler and is_inductor(function.compiler):
                call = partial(replace(function, saves_inputs=True), *call.args, **call.keywords)
        found = self._under_way.find_flow(call) if self._under_way and place is self._expected else None
        x, flow = found or (_main_input(arguments_of(call)), Flow())
        if found is None:
            self.end()
            self._under_way = self._begin(place, call, x)
        self._expected = place.following
        before, self._offloaded = self._offloaded, None
        if self._under_way is not None and x is not None:
            results = self._under_way.run(place, call, x, flow)
            if place is self._under_way.last:
                self.end()
        elif isinstance(place.step, Offload):
            self._offloaded = OffloadedCall([place.module], arguments_of(call), before)
            with self._offloaded.saving():
                results = call()
        else:
            results = call()
        if before is not None:
            before.leave(tensors_in(results))
        return results

    def _begin(self, place: _Place, call: ModuleCall, x: Tensor | None) -> _StepRun | None:
        """Return the run that begins with a call, none where all of it is saved, or the compiler chooses."""
        step = place.step
        if isinstance(step, (SaveAll, Offload)) or x is None:
            return None
        if isinstance(call.func, CompiledFunction) and (call.func.saves_inputs or _saves_expensive(step)):
            return None
        if isinstance(step, SaveSome) and place.begins_unit:
            return _SelectiveStepRun(place.rest(), step, x)
        return _RecomputedStepRun(place.rest(), self._others, x)


def _saves_expensive(step: Step) -> bool:
    """Return whether a step saves what a compiler does anyway."""
    return isinstance(step, SaveSome) and step.save is None


def _main_input(inputs: Sequence[Tensor]) -> Tensor | None:
    """Return the tensor that a step saves as its input: the largest that requires a gradient, or the largest."""
    return max(inputs, key=lambda tensor: (tensor.requires_grad, tensor.nbytes), default=None)


class _StepRun(ABC):
    """The calls of one step of a plan, as they come."""

    def __init__(self, places: Sequence[_Place]) -> None:
        self.last = places[-1]
        self._returned: list[Returned] = []

    def find_flow(self, call: ModuleCall) -> tuple[Tensor, Flow] | None:
        """Return what flows from the last call into another one."""
        found = ((x, flow) for x in arguments_of(call) for one in self._returned if (flow := one.flow_into(x)))
        return next(found, None)

    def run(self, place: _Place, call: ModuleCall, x: Tensor, flow: Flow) -> Any:
        """Run a call, into which `x` flows."""
        with self._running(place, call, x, flow):
            results = call()
        outputs = tensors_in(results)
        self._returned = [Returned(number, tensor) for number, tensor in enumerate(outputs)]
        self._note(outputs)
        return results

    @abstractmethod
    def _running(self, place: _Place, call: ModuleCall, x: Tensor, flow: Flow) -> AbstractContextManager[None]:
        """Return the context for a call."""

    @abstractmethod
    def _note(self, outputs: Sequence[Tensor]) -> None:
        """A call has returned these tensors."""

    @abstractmethod
    def end(self) -> None:
        """No further call will come."""


class _SelectiveStepRun(_StepRun):
    def __init__(self, places: Sequence[_Place], step: SaveSome, x: Tensor) -> None:
        super().__init__(places)
        self._recorder = CallRecorder(x, step.save, step.no_cache)

    def _running(self, place: _Place, call: ModuleCall, x: Tensor, flow: Flow) -> AbstractContextManager[None]:  # noqa: ARG002
        if place.begins_unit and self._returned:
            self._recorder.link(x)
        return self._recorder.part()

    def _note(self, outputs: Sequence[Tensor]) -> None:
        before_backward(outputs, self, _SelectiveStepRun.end)  # at the latest

    def end(self) -> None:
        alive = (returned.tensor() for returned in self._returned)
        self._recorder.settle(next((tensor for tensor in alive if tensor is not None), None))


class _RecomputedStepRun(_StepRun):
    def __init__(self, places: Sequence[_Place], others: Sequence[nn.Module], x: Tensor) -> None:
        super().__init__(places)
        self._calls: list[tuple[_Place, HeldCall]] = []
        modules = [module for place in places for module in every_module(place.module)]
        # It must not know this run: a cycle lives long.
        replay = partial(_replay, self._calls, others)
        self._range = Range(replay, (*modules, *others), x, _name_of(places))

    def _running(self, place: _Place, call: ModuleCall, x: Tensor, flow: Flow) -> AbstractContextManager[None]:
        self._calls.append((place, HeldCall(call, x, flow)))
        return self._range.first_run()

    def _note(self, outputs: Sequence[Tensor]) -> None:
        _, held = self._calls[-1]
        held.offer()
        self._range.end(outputs)

    def end(self) -> None:
        """Nothing is to do."""


def _name_of(places: Iterable[_Place]) -> str:
    return FoundUnit(tuple(place.call for place in places)).name


def _replay(calls: Sequence[tuple[_Place, HeldCall]], others: Sequence[nn.Module], x: Tensor) -> Tensor:
    """Make the calls of a range again, from the first on."""
    first, last = calls[0][0], calls[-1][0]
    units = [_unit(calls, number) for number in range(first.unit, last.unit + 1)]
    if not first.begins_unit or not isinstance(first.step, Recompute):
        return run_steps(units, others, [SaveAll(0)], x)  # the calls to save are named from a unit's start
    return run_steps(units, others, between(first.step.steps, first.unit, last.unit + 1), x)


def _unit(calls: Sequence[tuple[_Place, HeldCall]], number: int) -> Unit:
    places = [place for place, _ in calls if place.unit == number]
    own = [held for place, held in calls if place.unit == number]
    following = next((held for place, held in calls if place.unit > number), None)
    return Unit(_name_of(places), partial(_run_calls, own, following), tuple(place.module for place in places))


def _run_calls(calls: Sequence[HeldCall], following: HeldCall | None, x: Tensor) -> Tensor:
    """Return what flows out of a unit into the call that follows it."""
    results: Any = None
    for number, call in enumerate(calls):
        results = call.run(x if number == 0 else call.flow.pick(results))
    return tensors_in(results)[0] if following is None else following.flow.pick(results)
