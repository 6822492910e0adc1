"""What a plan is made from: for each unit of a chain, the bytes it holds and the time it takes, treated each way."""

from __future__ import annotations

from dataclasses import dataclass

from aerofuse.checkpointing.plan import Keep, Thin


@dataclass(frozen=True)
class Way:
    """One way to treat a unit on its own, and what it takes.

    The unit's input is not counted: the unit before answers for it. Where this way lets the input go, its bytes are
    therefore taken off what is held and off the peak of the backward pass.

    - `keep`: the calls whose results are kept; `None` is everything, as without checkpointing.
    - `held_bytes`: alive between the unit's forward and its backward, its output left out; may be below 0.
    - `forward_bytes`: at most alive while it runs forward, its output included.
    - `backward_bytes`: at most alive in its backward: what it held, what it computes again, the gradient of its
      output and that of its input.
    - `backward_total_bytes`: the same with the gradients of its parameters.
    - `replay_seconds`: what is computed again.
    - `sparing`: as in `Thin`.
    """

    keep: tuple[str, ...] | None
    held_bytes: int
    forward_bytes: int
    backward_bytes: int
    backward_total_bytes: int
    replay_seconds: float
    sparing: bool = False

    def step(self, unit: int) -> Keep | Thin:
        """The unit of that index, treated so."""
        return Keep(unit) if self.keep is None else Thin(unit, self.keep, self.sparing)


@dataclass(frozen=True)
class UnitProfile:
    """One unit. The first of its `ways` keeps everything.

    `passing_bytes` is the most that is alive while it runs forward and saves nothing, its input left out.
    `gradient_bytes` are those of its own parameters that learn, `statistics_bytes` those of its running statistics, of
    which copies take the update while a range runs again. `rerun_seconds` is a second run as far as the last
    tensor that autograd wants, `whole_rerun_seconds` one to the end.
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
    ways: tuple[Way, ...]


@dataclass(frozen=True)
class ChainProfile:
    """Chains that run one after the other, their units in one row. `starts` are the indices at which they start."""

    units: tuple[UnitProfile, ...]
    starts: tuple[int, ...]

    @property
    def seconds(self) -> float:
        """A forward and a backward pass without checkpointing."""
        return sum(unit.forward_seconds + unit.backward_seconds for unit in self.units)

    def joined(self, other: ChainProfile) -> ChainProfile:
        """These chains, then those of `other`."""
        shifted = tuple(start + len(self.units) for start in other.starts)
        return ChainProfile(self.units + other.units, self.starts + shifted)
