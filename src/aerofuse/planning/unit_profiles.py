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
    - `replay_seconds`: what is computed again, and what it takes to remember it and to bring it back.
    - `fixed_seconds`: of them, those that are the same for a batch of any size.
    - `sparing`: as in `Thin`.
    - `link_seconds`: what it takes to make the output from the input and from what is kept, `None` where that is not
      possible or would make nearly all again; `link_bytes` are held for that besides. See `Thin.count`.
    """

    keep: tuple[str, ...] | None
    held_bytes: int
    forward_bytes: int
    backward_bytes: int
    backward_total_bytes: int
    replay_seconds: float
    fixed_seconds: float = 0.0
    sparing: bool = False
    link_seconds: float | None = None
    link_bytes: int = 0

    def step(self, unit: int, count: int = 1) -> Keep | Thin:
        """The unit of that index, or so many linked units from it on, treated so."""
        return Keep(unit) if self.keep is None else Thin(unit, self.keep, self.sparing, count)


@dataclass(frozen=True)
class UnitProfile:
    """One unit. The first of its `ways` keeps everything.

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
    ways: tuple[Way, ...]

    def is_like(self, other: UnitProfile) -> bool:
        """Whether both are of one kind, so that they can be linked."""
        return self.output_bytes == other.output_bytes and self.ways == other.ways


@dataclass(frozen=True)
class Row:
    """Linked units of one kind, each treated the same way; one unit is the shortest row.

    Of each unit but the first the input is there only while its backward pass runs.
    """

    unit: UnitProfile
    way: Way
    count: int

    @property
    def held_bytes(self) -> int:
        """Alive between forward and backward, the output of the last unit left out."""
        return self.count * self.way.held_bytes + (self.count - 1) * self.way.link_bytes

    @property
    def replay_seconds(self) -> float:
        """What is computed again: each input anew from the first."""
        links = self.count * (self.count - 1) // 2
        return self.count * self.way.replay_seconds + links * (self.way.link_seconds or 0.0)

    @property
    def fixed_seconds(self) -> float:
        """Of them, those that are the same for a batch of any size."""
        return self.count * self.way.fixed_seconds

    @property
    def gradient_bytes(self) -> int:
        """Gradients of the parameters."""
        return self.count * self.unit.gradient_bytes

    def held_before(self, position: int) -> int:
        """What the units before one of the row hold, and the input that is made for it."""
        made = self.unit.output_bytes if position else 0
        return position * (self.way.held_bytes + self.way.link_bytes) + made

    @property
    def forward_bytes(self) -> int:
        """At most alive while the row runs forward."""
        return self.held_before(self.count - 1) + self.way.forward_bytes

    @property
    def backward_bytes(self) -> int:
        """At most alive in the backward pass, without gradients of parameters."""
        return self.held_before(self.count - 1) + self.way.backward_bytes

    @property
    def backward_total_bytes(self) -> int:
        """The same with the gradients of its parameters, which grow while what is held shrinks."""
        return max(
            self.held_before(position)
            + self.way.backward_total_bytes
            + (self.count - 1 - position) * self.unit.gradient_bytes
            for position in range(self.count)
        )


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
