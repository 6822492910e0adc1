"""Finding out what each unit of a chain holds and costs, every kind of unit once."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from aerofuse.checkpointing.chain import Chain, Unit, modules_of
from aerofuse.checkpointing.recompute import run_recomputed
from aerofuse.checkpointing.selective import list_calls, run_thinned
from aerofuse.checkpointing.snapshot import running_statistics, statistics_untouched
from aerofuse.memory.torch_private import all_modes_off
from aerofuse.planning.clocks import Measured, Stopwatch
from aerofuse.planning.counting import TensorLike, UnitBytes, count_unit
from aerofuse.planning.save_sets import link_bytes, link_seconds, replay_seconds, sets_to_keep, sparing_seconds
from aerofuse.planning.unit_profiles import ChainProfile, UnitProfile, Way

Cast = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class _Kind:
    """What is known of one kind of unit."""

    profile: UnitProfile
    output: TensorLike
    holds_output: bool
    lets_input_go: frozenset[Way]


def profile_chain(fake: Chain, real: Chain, inputs: TensorLike, stopwatch: Stopwatch, autocast: Cast) -> ChainProfile:
    """The profile of a chain for inputs of the given layout.

    `fake` is the chain of a copy on fake tensors, whose mode is on: bytes are counted on it, and times too where
    they are estimated. Where they are measured, that is done on copies of the units of `real`.
    """
    kinds: dict[Hashable, _Kind] = {}
    found: list[_Kind] = []
    with statistics_untouched(modules_of(fake)):
        signatures = [_signature(unit) for unit in fake]
        repeated = {one for one, other in pairwise(signatures) if one == other}
        counts = Counter(signatures)
        for unit, twin, signature in zip(fake, real, signatures, strict=True):
            key = (signature, inputs)
            if key not in kinds:
                linked, count = signature in repeated, counts[signature]
                kinds[key] = _profile_unit(unit, twin, inputs, stopwatch, autocast, linked=linked, count=count)
            found.append(kinds[key])
            inputs = kinds[key].output
    units: list[UnitProfile] = []
    before: _Kind | None = None
    for unit, kind in zip(fake, found, strict=True):
        gone = 0 if before is None or before.holds_output else before.profile.output_bytes
        ways = (_less(way, gone) if gone and way in kind.lets_input_go else way for way in kind.profile.ways)
        units.append(replace(kind.profile, name=unit.name, ways=tuple(ways)))
        before = kind
    return ChainProfile(tuple(units), (0,))


def _less(way: Way, input_bytes: int) -> Way:
    # Its output cannot stand in for the input of a unit that does not hold it anyway.
    return replace(
        way,
        link_seconds=None,
        held_bytes=way.held_bytes - input_bytes,
        backward_bytes=way.backward_bytes - input_bytes,
        backward_total_bytes=way.backward_total_bytes - input_bytes,
    )


def _profile_unit(
    unit: Unit, real: Unit, inputs: TensorLike, stopwatch: Stopwatch, autocast: Cast, *, linked: bool, count: int
) -> _Kind:
    parameters = _parameters(unit.modules)
    buffers = [buffer for module in unit.modules for buffer in module.buffers()]
    count_bytes = partial(count_unit, parameters=parameters, buffers=buffers, inputs=inputs, autocast=autocast)
    with autocast():
        x = inputs.make().requires_grad_(inputs.requires_grad)
        calls = list_calls(unit.run, x)
        output = TensorLike.of(unit.run(x))
    linked = linked and output == inputs
    if isinstance(stopwatch, Measured):
        with all_modes_off(), torch.random.fork_rng(), torch.enable_grad():
            run, modules = copy.deepcopy((real.run, real.modules))
            seconds = stopwatch.time_unit(run, _parameters(modules), inputs, autocast, linked=linked, count=count)
    else:
        seconds = stopwatch.time_unit(unit.run, parameters, inputs, autocast, linked=linked, count=count)
    kept = count_bytes(unit.run)
    counts = {_way(kept, None): kept}
    by_name = {call.name: call for call in calls}
    for keep in sets_to_keep(calls, seconds.replays):
        sharing, alone = (
            seconds_of(by_name, keep, seconds.replays) for seconds_of in (replay_seconds, sparing_seconds)
        )
        # Where nothing would be shared, sparing changes nothing.
        for sparing, again in ((False, sharing), (True, alone)) if alone > sharing else ((False, sharing),):
            counted = count_bytes(partial(run_thinned, unit.run, keep=keep, sparing=sparing))
            again += seconds.thinning.seconds
            way = replace(
                _way(counted, keep), replay_seconds=again, fixed_seconds=seconds.thinning.fixed, sparing=sparing
            )
            if linked and (output_seconds := link_seconds(by_name, keep, seconds.replays)) is not None:
                way = replace(way, link_seconds=output_seconds, link_bytes=link_bytes(by_name, keep))
            counts[way] = counted
    dropped = count_bytes(partial(_run_dropped, unit))
    profile = UnitProfile(
        name=unit.name,
        output_bytes=kept.output_bytes,
        passing_bytes=dropped.forward_bytes,
        gradient_bytes=sum(parameter.nbytes for parameter in parameters if parameter.requires_grad),
        statistics_bytes=sum(found.buffer.nbytes for found in running_statistics(modules_of([unit]))),
        forward_seconds=seconds.forward,
        backward_seconds=seconds.backward,
        rerun_seconds=seconds.rerun + seconds.rerunning.seconds,
        whole_rerun_seconds=seconds.whole_rerun + seconds.rerunning.seconds,
        rerun_fixed_seconds=seconds.rerunning.fixed,
        ways=tuple(_worthwhile(list(counts))),
    )
    lets_input_go = frozenset(way for way, counted in counts.items() if not counted.input_is_held)
    return _Kind(profile, output, kept.output_is_held, lets_input_go)


def _run_dropped(unit: Unit, x: Tensor) -> Tensor:
    return run_recomputed(unit.run, unit.run, partial(modules_of, [unit]), x)


def _way(counted: UnitBytes, keep: tuple[str, ...] | None) -> Way:
    return Way(
        keep,
        counted.held_bytes,
        counted.forward_bytes,
        counted.backward_bytes,
        counted.backward_total_bytes,
        replay_seconds=0.0,
    )


def _worthwhile(ways: list[Way]) -> list[Way]:
    """The first way, and those which hold less than every faster one, or less at their peak."""
    chosen = ways[:1]
    for way in sorted(ways[1:], key=lambda way: way.replay_seconds):
        if all(way.held_bytes < other.held_bytes or way.backward_bytes < other.backward_bytes for other in chosen):
            chosen.append(way)
    return chosen


def _parameters(modules: tuple[nn.Module, ...]) -> list[nn.Parameter]:
    # A module may be listed below another.
    return list({id(p): p for module in modules for p in module.parameters()}.values())


def _signature(unit: Unit) -> Hashable:
    """Equal for units that hold and compute the same; rates of dropout and the like count as on or off."""
    run: Any = unit.run
    function = run.func if isinstance(run, partial) else run
    name = type(function).__name__ if isinstance(function, nn.Module) else function.__qualname__
    return name, tuple(_module_signature(module) for top in unit.modules for module in top.modules())


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
