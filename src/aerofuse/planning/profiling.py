"""What each unit of a chain saves and costs under each policy, found for every kind of unit once."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from aerofuse.checkpointing.chain import Chain, Unit, modules_of
from aerofuse.checkpointing.module_tensors import ModuleTensors
from aerofuse.checkpointing.offload import run_offloaded
from aerofuse.checkpointing.recompute import run_recomputed
from aerofuse.checkpointing.selective import list_calls, run_selective
from aerofuse.checkpointing.snapshot import running_statistics
from aerofuse.checkpointing.steps import Offload, SaveAll, SaveSome
from aerofuse.memory.fake import without_hooks
from aerofuse.memory.torch_private import all_modes_off
from aerofuse.planning.bound_units import BoundRun
from aerofuse.planning.clocks import Measured, Stopwatch, Transfer
from aerofuse.planning.save_sets import link_bytes, link_seconds, no_cache_seconds, replay_seconds, sets_to_save
from aerofuse.planning.unit_bytes import TensorLike, UnitBytes, count_unit

Cast = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class UnitPolicy:
    """A policy for one unit on its own, and what that takes.

    The unit's input is not counted: the unit before answers for it. Where this policy frees the input, its bytes are
    therefore taken off what is saved and off the peak of the backward pass.

    - `save`: the calls whose results are saved; `None` is everything, as without checkpointing.
    - `saved_bytes`: alive between the unit's forward and its backward, its output left out; may be below 0.
    - `forward_bytes`: at most alive while it runs forward, its output included.
    - `backward_bytes`: at most alive in its backward: what it saved, what it computes again, the gradient of its
      output and that of its input.
    - `backward_total_bytes`: the same with the gradients of its parameters.
    - `replay_seconds`: what is computed again, and what it takes to remember it and to bring it back.
    - `fixed_seconds`: of them, those that are the same for a batch of any size.
    - `offloads`: everything is saved in host memory. These bytes are those of the device, once all has left it.
    - `no_cache`: as in `SaveSome`.
    - `link_seconds`: what it takes to make the output from the input and from what is saved, `None` where that is not
      possible or would make nearly all again; `link_bytes` are saved for that besides. See `SaveSome.count`.
    """

    save: tuple[str, ...] | None
    saved_bytes: int
    forward_bytes: int
    backward_bytes: int
    backward_total_bytes: int
    replay_seconds: float
    fixed_seconds: float = 0.0
    no_cache: bool = False
    link_seconds: float | None = None
    link_bytes: int = 0
    offloads: bool = False

    def step(self, unit: int, count: int = 1) -> SaveAll | Offload | SaveSome:
        """Return the step of that unit, or of so many linked units from it on."""
        if self.offloads:
            return Offload(unit)
        return SaveAll(unit) if self.save is None else SaveSome(unit, self.save, self.no_cache, count)


@dataclass(frozen=True)
class UnitProfile:
    """One unit. The first of its `policies` saves everything. `offloaded` is one more, where that is allowed.

    `passing_bytes` is the most that is alive while it runs forward and saves nothing, its input left out.
    `gradient_bytes` are those of its own parameters that learn, `statistics_bytes` those of its running statistics, of
    which copies take the update while a range runs again. `rerun_seconds` is a second run as far as the last
    tensor that autograd wants, `whole_rerun_seconds` one to the end; of both, `rerun_fixed_seconds` are the same for a
    batch of any size.
    """

    name: str
    output_bytes: int
    passing_bytes: int
    gradient_bytes: int
    statistics_bytes: int
    forward_seconds: float
    backward_seconds: float
    rerun_seconds: float
    whole_rerun_seconds: float
    rerun_fixed_seconds: float
    policies: tuple[UnitPolicy, ...]
    offloaded: UnitPolicy | None = None

    def is_like(self, other: UnitProfile) -> bool:
        """Return whether both are of one kind, so that they can be linked."""
        return self.output_bytes == other.output_bytes and self.policies == other.policies

    @property
    def choices(self) -> tuple[UnitPolicy, ...]:
        """Return all of its policies."""
        return self.policies if self.offloaded is None else (*self.policies, self.offloaded)

    @property
    def moved_bytes(self) -> int:
        """Return what leaves the device when the unit is offloaded."""
        return 0 if self.offloaded is None else self.policies[0].saved_bytes - self.offloaded.saved_bytes


@dataclass(frozen=True)
class ChainProfile:
    """Chains that run one after the other, their units in one row. `starts` are the indices at which they start."""

    units: tuple[UnitProfile, ...]
    starts: tuple[int, ...]

    @property
    def seconds(self) -> float:
        """Return a forward and a backward pass without checkpointing."""
        return sum(unit.forward_seconds + unit.backward_seconds for unit in self.units)

    def of_whole_units(self) -> ChainProfile:
        """Return the same without policies that save a part of a unit."""
        return replace(self, units=tuple(replace(unit, policies=unit.policies[:1]) for unit in self.units))

    def without_offload(self) -> ChainProfile:
        """Return the same for plans that offload nothing."""
        return replace(self, units=tuple(replace(unit, offloaded=None) for unit in self.units))

    def joined(self, other: ChainProfile, glue_bytes: int) -> ChainProfile:
        """These chains, then those of `other`, whose input takes `glue_bytes` besides what these return."""
        last = self.units[-1]
        units = (*self.units[:-1], replace(last, output_bytes=last.output_bytes + glue_bytes))
        shifted = tuple(start + len(self.units) for start in other.starts)
        return ChainProfile(units + other.units, self.starts + shifted)

    def with_transfer(self, transfer: Transfer) -> ChainProfile:
        """Return the same with the times of offloading: what is not hidden behind the passes of the unit after."""
        units = [*self.units[:-1]]
        for index, (unit, after) in enumerate(pairwise(self.units)):
            out, back = transfer.out * unit.moved_bytes, transfer.back * unit.moved_bytes
            if transfer.overlaps:
                out, back = max(out - after.forward_seconds, 0.0), max(back - after.backward_seconds, 0.0)
            if unit.offloaded is not None:
                units[index] = replace(unit, offloaded=replace(unit.offloaded, replay_seconds=out + back))
        # The backward pass of the last unit follows at once.
        return replace(self, units=(*units, replace(self.units[-1], offloaded=None)))


@dataclass(frozen=True)
class _UnitKind:
    """What is known of one kind of unit."""

    profile: UnitProfile
    output: TensorLike
    saves_output: bool
    frees_input: frozenset[UnitPolicy]


def profile_chain(
    fake: Chain, real: Chain, layouts: Sequence[TensorLike], stopwatch: Stopwatch, autocast: Cast, offload: bool = False
) -> ChainProfile:
    """Return the profile of a chain for inputs of each unit of the given layouts.

    `fake` is the chain of a copy on fake tensors, whose mode is on: bytes are counted on it, and times too where
    they are estimated. Where they are measured, that is done on copies of the units of `real`. With `offload`, that is
    one of the policies, whose time is left out: see `ChainProfile.with_transfer`.
    """
    kinds: dict[Hashable, _UnitKind] = {}
    found: list[_UnitKind] = []
    with ModuleTensors(modules_of(fake)).as_before():
        signatures = [unit_signature(unit) for unit in fake]
        repeated = {one for one, other in pairwise(signatures) if one == other}
        counts = Counter(signatures)
        for unit, twin, signature, inputs in zip(fake, real, signatures, layouts, strict=True):
            key = (signature, inputs)
            if key not in kinds:
                linked, count = signature in repeated, counts[signature]
                kinds[key] = _profile_unit(
                    unit, twin, inputs, stopwatch, autocast, linked=linked, count=count, offload=offload
                )
            found.append(kinds[key])
    units: list[UnitProfile] = []
    before: _UnitKind | None = None
    for unit, kind in zip(fake, found, strict=True):
        gone = 0 if before is None or before.saves_output else before.profile.output_bytes
        policies = (
            _less(policy, gone) if gone and policy in kind.frees_input else policy for policy in kind.profile.policies
        )
        offloaded = kind.profile.offloaded
        if before is not None and offloaded in kind.frees_input:
            # Also where the unit before saves its output, for it is most often offloaded, too.
            offloaded = _less(offloaded, before.profile.output_bytes)
        units.append(replace(kind.profile, name=unit.name, policies=tuple(policies), offloaded=offloaded))
        before = kind
    return ChainProfile(tuple(units), (0,))


def _less(policy: UnitPolicy, input_bytes: int) -> UnitPolicy:
    # Its output cannot stand in for the input of a unit that does not save it anyway.
    return replace(
        policy,
        link_seconds=None,
        saved_bytes=policy.saved_bytes - input_bytes,
        backward_bytes=policy.backward_bytes - input_bytes,
        backward_total_bytes=policy.backward_total_bytes - input_bytes,
    )


def _profile_unit(
    unit: Unit,
    real: Unit,
    inputs: TensorLike,
    stopwatch: Stopwatch,
    autocast: Cast,
    *,
    linked: bool,
    count: int,
    offload: bool,
) -> _UnitKind:
    parameters = _parameters(unit.modules)
    count_bytes = partial(count_unit, modules=unit.modules, inputs=inputs, autocast=autocast)
    with autocast():
        x = inputs.make().requires_grad_(inputs.requires_grad)
        calls = list_calls(unit.run, x)
        output = TensorLike.of(unit.run(x))
    linked = linked and output == inputs
    if isinstance(stopwatch, Measured):
        with all_modes_off(), torch.random.fork_rng(), torch.enable_grad():
            run, modules = copy.deepcopy((real.run, real.modules), without_hooks(modules_of([real])))
            seconds = stopwatch.time_unit(run, _parameters(modules), inputs, autocast, linked=linked, count=count)
    else:
        seconds = stopwatch.time_unit(unit.run, parameters, inputs, autocast, linked=linked, count=count)
    whole = count_bytes(unit.run)
    counts = {_policy(whole, None): whole}
    by_name = {call.name: call for call in calls}
    for save in sets_to_save(calls, seconds.replays):
        sharing, alone = (
            seconds_of(by_name, save, seconds.replays) for seconds_of in (replay_seconds, no_cache_seconds)
        )
        # Where nothing would be shared, a cache changes nothing.
        for no_cache, again in ((False, sharing), (True, alone)) if alone > sharing else ((False, sharing),):
            counted = count_bytes(partial(run_selective, unit.run, save=save, no_cache=no_cache))
            again += seconds.selective.seconds
            policy = replace(
                _policy(counted, save), replay_seconds=again, fixed_seconds=seconds.selective.fixed, no_cache=no_cache
            )
            if linked and (output_seconds := link_seconds(by_name, save, seconds.replays)) is not None:
                policy = replace(policy, link_seconds=output_seconds, link_bytes=link_bytes(by_name, save))
            counts[policy] = counted
    dropped = count_bytes(partial(_run_recomputed, unit))
    profile = UnitProfile(
        name=unit.name,
        output_bytes=whole.output_bytes,
        passing_bytes=dropped.forward_bytes,
        gradient_bytes=sum(parameter.nbytes for parameter in parameters if parameter.requires_grad),
        statistics_bytes=sum(buffer.nbytes for buffer in running_statistics(modules_of([unit]))),
        forward_seconds=seconds.forward,
        backward_seconds=seconds.backward,
        rerun_seconds=seconds.rerun + seconds.rerunning.seconds,
        whole_rerun_seconds=seconds.whole_rerun + seconds.rerunning.seconds,
        rerun_fixed_seconds=seconds.rerunning.fixed,
        policies=tuple(_worthwhile(list(counts))),
    )
    if offload:
        moved = count_bytes(partial(run_offloaded, unit.run, unit.modules))
        offloaded = replace(_policy(moved, None), offloads=True)
        profile, counts[offloaded] = replace(profile, offloaded=offloaded), moved
    frees_input = frozenset(policy for policy, counted in counts.items() if not counted.input_is_saved)
    return _UnitKind(profile, output, whole.output_is_saved, frees_input)


def _run_recomputed(unit: Unit, x: Tensor) -> Tensor:
    return run_recomputed(unit.run, unit.run, modules_of([unit]), x)


def _policy(counted: UnitBytes, save: tuple[str, ...] | None) -> UnitPolicy:
    return UnitPolicy(
        save,
        counted.saved_bytes,
        counted.forward_bytes,
        counted.backward_bytes,
        counted.backward_total_bytes,
        replay_seconds=0.0,
    )


def _worthwhile(policies: list[UnitPolicy]) -> list[UnitPolicy]:
    """Return the first policy, and those which save less than every faster one, or less at their peak."""
    chosen = policies[:1]
    for policy in sorted(policies[1:], key=lambda policy: policy.replay_seconds):
        if all(
            policy.saved_bytes < other.saved_bytes or policy.backward_bytes < other.backward_bytes for other in chosen
        ):
            chosen.append(policy)
    return chosen


def _parameters(modules: tuple[nn.Module, ...]) -> list[nn.Parameter]:
    # A module may be listed below another.
    return list({id(p): p for module in modules for p in module.parameters()}.values())


def unit_signature(unit: Unit) -> Hashable:
    """Return what is equal for units that save and compute the same; rates such as dropout's count as on or off."""
    assert isinstance(unit.run, BoundRun)
    return unit.run.signature, tuple(_module_signature(module) for top in unit.modules for module in top.modules())


def _module_signature(module: nn.Module) -> Hashable:
    settings: list[tuple[str, object]] = []
    for name, value in sorted(vars(module).items()):
        if isinstance(value, float):
            settings.append((name, bool(value)))
        elif isinstance(value, (bool, int, str, tuple)) or value is None:
            settings.append((name, repr(value)))
    tensors = [
        (name, tuple(tensor.shape), tensor.dtype, tensor.requires_grad)
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    ]
    return type(module), tuple(settings), tuple(tensors)
