"""Finds what each unit of a chain saves and costs under each policy, for every kind of unit once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

from torch import Tensor

from aerofuse.checkpointing.chain import Chain, Unit, modules_of
from aerofuse.checkpointing.module_tensors import ModuleTensors
from aerofuse.checkpointing.offload import run_offloaded
from aerofuse.checkpointing.recompute import run_recomputed
from aerofuse.checkpointing.selective import list_calls, run_selective
from aerofuse.checkpointing.snapshot import Autocast
from aerofuse.common.hardware import device_name
from aerofuse.planning.bound_units import signature_of
from aerofuse.planning.clocks import UnitSeconds
from aerofuse.planning.estimates import Estimated, Stopwatch
from aerofuse.planning.save_sets import Replays, sets_to_save
from aerofuse.planning.seen_before import seen_before
from aerofuse.planning.unit_bytes import Autocasting, TensorLike, UnitBytes, count_unit
from aerofuse.planning.unit_costs import UnitPolicy, UnitProfile


@dataclass(frozen=True)
class Profiler:
    """Profiles chains. With `offload`, that is one of the policies; see `ChainProfile.with_transfer` for its time."""

    stopwatch: Stopwatch
    autocast: Autocasting
    offload: bool = False

    def profile_chain(self, fake: Chain, real: Chain, layouts: Sequence[TensorLike]) -> list[UnitProfile]:
        """Return the profiles of a chain for inputs of each unit of the given layouts.

        `fake` is the chain of a copy on fake tensors, whose mode is on: bytes are counted on it, and times too where
        they are estimated. Where they are measured, that is done on copies of the units of `real`.
        """
        kinds = [(signature_of(unit), inputs) for unit, inputs in zip(fake, layouts, strict=True)]
        linked = {one for one, other in pairwise(kinds) if one == other}
        counts = Counter(kinds)
        with self.autocast():
            autocast_and_device = Autocast.capture(layouts[0].device), device_name(layouts[0].device)
        units: list[UnitProfile] = []
        input_bytes = freed_bytes = 0  # those of the unit's input, and where the unit before does not save it
        for unit, twin, kind, inputs in zip(fake, real, kinds, layouts, strict=True):
            is_linked, count = kind in linked, counts[kind]
            key = (kind, autocast_and_device, self.stopwatch, self.offload, is_linked, count)
            timed = unit if isinstance(self.stopwatch, Estimated) else twin
            found = seen_before(key, unit, partial(self._profile, unit, timed, inputs, is_linked, count))
            # What is offloaded also where the unit before saves its output, for it is most often offloaded, too.
            policies = (one.without_input(input_bytes if one.offloads else freed_bytes) for one in found.policies)
            units.append(replace(found, name=unit.name, policies=tuple(policies)))
            input_bytes = found.output_bytes
            freed_bytes = 0 if found.policies[0].bytes.output_is_saved else input_bytes
        return units

    def _profile(self, unit: Unit, timed: Unit, inputs: TensorLike, is_linked: bool, count: int) -> UnitProfile:
        """Return the profile of a unit, of which the chain has `count`; `is_linked`: two of them in a row somewhere."""
        with ModuleTensors(modules_of([unit])).as_before():
            seconds = self.stopwatch.time_unit(timed, inputs, self.autocast, linked=is_linked, count=count)
            whole = self._count(unit, inputs, unit.run)
            passing = self._count(unit, inputs, partial(_run_recomputed, unit))
            policies = _worthwhile([UnitPolicy(whole), *self._selective(unit, inputs, seconds, is_linked)])
            if self.offload:
                moved = self._count(unit, inputs, partial(run_offloaded, unit.run, unit.modules))
                policies.append(UnitPolicy(moved, offloads=True))
        return UnitProfile(
            name=unit.name,
            output_bytes=whole.output,
            passing_bytes=passing.forward,
            gradient_bytes=whole.gradients,  # a half of a block has none of the other half
            seconds=replace(seconds, replays={}),
            policies=tuple(policies),
        )

    def _selective(self, unit: Unit, inputs: TensorLike, seconds: UnitSeconds, is_linked: bool) -> Iterator[UnitPolicy]:
        """Yield the policies that save some results."""
        with self.autocast():
            calls = list_calls(unit.run, inputs.make().requires_grad_(inputs.requires_grad))
        replays = Replays(calls, seconds.replays)
        for save in sets_to_save(replays):
            again = {False: replays.replay_seconds(save), True: replays.no_cache_seconds(save)}
            link_seconds = replays.link_seconds(save) if is_linked else None
            for no_cache, replay_seconds in again.items():
                if no_cache and replay_seconds <= again[False]:
                    continue  # where nothing would be shared, a cache changes nothing
                run = partial(run_selective, unit.run, save=save, no_cache=no_cache)
                yield UnitPolicy(
                    self._count(unit, inputs, run),
                    save=save,
                    replay_seconds=replay_seconds + seconds.selective,
                    no_cache=no_cache,
                    link_seconds=link_seconds,
                    link_bytes=0 if link_seconds is None else replays.link_bytes(save),
                )

    def _count(self, unit: Unit, inputs: TensorLike, run: Callable[[Tensor], Tensor]) -> UnitBytes:
        return count_unit(run, unit.modules, inputs, self.autocast)


def _run_recomputed(unit: Unit, x: Tensor) -> Tensor:
    return run_recomputed(unit.run, unit.run, modules_of([unit]), x)


def _worthwhile(policies: list[UnitPolicy]) -> list[UnitPolicy]:
    """Return the first policy, and those which save less than every faster one, or less at their peak."""
    chosen = policies[:1]
    for policy in sorted(policies[1:], key=lambda policy: policy.replay_seconds):
        if all(
            policy.bytes.saved < other.bytes.saved or policy.bytes.backward < other.bytes.backward for other in chosen
        ):
            chosen.append(policy)
    return chosen
