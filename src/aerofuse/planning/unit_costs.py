"""What each unit of a chain saves and costs under each policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

from aerofuse.checkpointing.steps import Offload, SaveAll, SaveSome
from aerofuse.planning.clocks import Transfer, UnitSeconds
from aerofuse.planning.unit_bytes import UnitBytes


@dataclass(frozen=True)
class UnitPolicy:
    """A policy for one unit on its own, and what that takes.

    The unit before answers for the bytes of the input. Where this policy frees the input, its bytes are therefore taken
    off what is saved, which may be below 0, and off the peak of the backward pass.

    - `save`: the calls whose results are saved; `None` is everything, as without checkpointing.
    - `replay_seconds`: what is computed again, and what it takes to remember it and to bring it back.
    - `no_cache`: as in `SaveSome`.
    - `link_seconds`: what it takes to make the output from the input and from what is saved, `None` where that is not
      possible or would make nearly all again; `link_bytes` are saved for that besides. See `SaveSome.count`.
    - `offloads`: everything is saved in host memory. The bytes are those of the device, once all has left it.
    """

    bytes: UnitBytes
    save: tuple[str, ...] | None = None
    replay_seconds: float = 0.0
    no_cache: bool = False
    link_seconds: float | None = None
    link_bytes: int = 0
    offloads: bool = False

    def step(self, unit: int, count: int = 1) -> SaveAll | Offload | SaveSome:
        """Return the step of that unit, or of so many linked units from it on."""
        if self.offloads:
            return Offload(unit)
        return SaveAll(unit) if self.save is None else SaveSome(unit, self.save, self.no_cache, count)

    def without_input(self, input_bytes: int) -> UnitPolicy:
        """Return the same with the bytes of the input taken off, if it frees that."""
        if self.bytes.input_is_saved or not input_bytes:
            return self
        less = replace(
            self.bytes,
            saved=self.bytes.saved - input_bytes,
            backward=self.bytes.backward - input_bytes,
            backward_total=self.bytes.backward_total - input_bytes,
        )
        # Its output cannot stand in for the input of a unit that does not save it anyway.
        return replace(self, bytes=less, link_seconds=None)


@dataclass(frozen=True)
class UnitProfile:
    """One unit. The first of its `policies` saves everything; the last offloads, where that is allowed.

    `passing_bytes` is the most that is alive while it runs forward and saves nothing, its input left out.
    `gradient_bytes` are those of its own parameters that learn.
    """

    name: str
    output_bytes: int
    passing_bytes: int
    gradient_bytes: int
    seconds: UnitSeconds
    policies: tuple[UnitPolicy, ...]

    def is_like(self, other: UnitProfile) -> bool:
        """Return whether both are of one kind, so that they can be linked."""
        mine, others = ([one for one in unit.policies if not one.offloads] for unit in (self, other))
        return self.output_bytes == other.output_bytes and mine == others

    @property
    def moved_bytes(self) -> int:
        """Return what leaves the device when the unit is offloaded."""
        return sum(self.policies[0].bytes.saved - one.bytes.saved for one in self.policies if one.offloads)


@dataclass(frozen=True)
class ChainProfile:
    """Chains that run one after the other, their units in one row. `starts` are the indices at which they start."""

    units: tuple[UnitProfile, ...]
    starts: tuple[int, ...]

    @property
    def seconds(self) -> float:
        """Return a forward and a backward pass without checkpointing."""
        return sum(unit.seconds.forward + unit.seconds.backward for unit in self.units)

    def only(self, is_allowed: Callable[[UnitPolicy], bool]) -> ChainProfile:
        """Return the same with fewer policies."""
        units = (replace(unit, policies=tuple(filter(is_allowed, unit.policies))) for unit in self.units)
        return replace(self, units=tuple(units))

    def of_units_alone(self) -> ChainProfile:
        """Return the same for plans in which a unit is saved or computed again as a whole, and not with others."""
        return replace(self.only(lambda policy: policy.save is None), starts=tuple(range(len(self.units))))

    def with_transfer(self, transfer: Transfer) -> ChainProfile:
        """Return the same with the times of offloading: what is not hidden behind the passes of the unit after."""
        units = []
        for unit, after in pairwise(self.units):
            out, back = transfer.out * unit.moved_bytes, transfer.back * unit.moved_bytes
            if transfer.overlaps:
                out, back = max(out - after.seconds.forward, 0.0), max(back - after.seconds.backward, 0.0)
            policies = (replace(one, replay_seconds=out + back) if one.offloads else one for one in unit.policies)
            units.append(replace(unit, policies=tuple(policies)))
        # The backward pass of the last unit follows at once.
        last = replace(self.units[-1], policies=tuple(one for one in self.units[-1].policies if not one.offloads))
        return replace(self, units=(*units, last))
