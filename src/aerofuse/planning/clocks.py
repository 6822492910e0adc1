"""How long a unit takes, measured on the device at hand; `estimates` has the times of one that is not at hand."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from aerofuse.checkpointing.chain import Unit, modules_of
from aerofuse.checkpointing.offload import HostCopy
from aerofuse.checkpointing.recompute import run_recomputed
from aerofuse.checkpointing.selective import run_selective
from aerofuse.common.hardware import synchronise
from aerofuse.memory.fake import without_hooks
from aerofuse.memory.torch_private import all_modes_off, value_checks_off
from aerofuse.planning.unit_bytes import Autocasting, TensorLike, make_inputs


@dataclass(frozen=True)
class UnitSeconds:
    """The time of a unit's forward and backward pass, and what it takes more when some of it is done again.

    `rerun` is a second run as far as the last tensor that autograd wants, where it may stop; `whole_rerun` one to the
    end. `replays` is what each call of a unit that saves some results only takes when it is made again; `selective` is
    what it takes besides to see the calls and to bring their results back. `rerun_fixed` of either run, and
    `selective_fixed`, are the same for any batch, as what Python takes is; the rest is in proportion to it.
    """

    forward: float
    backward: float
    rerun: float
    whole_rerun: float
    rerun_fixed: float
    selective: float
    selective_fixed: float
    replays: Mapping[str, float] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Transfer:
    """Seconds per byte that goes to host memory, and per byte that comes back.

    `overlaps` says whether the device computes meanwhile.
    """

    out: float
    back: float
    overlaps: bool


# Overhead is a difference of two steps, a millisecond or so, and most of it is Python's: the same for any number of
# samples. On a CPU the step of few is what it is not lost in. Two, for normalisation.
_FEW_SAMPLES = 2
_TRANSFERRED_BYTES = 2**26
_TRANSFERS = 5


@dataclass(frozen=True)
class Measured:
    """Real steps of a copy of a unit on its own device, the median of some rounds.

    There are `rounds` for a kind of which there is one unit. Of n units the time counts n times, with what it is off,
    and there are the square root of n times as many; and up to twice as many within `seconds`.

    On a CPU no more than `batch` samples are timed, and what is computed is taken to be in proportion.
    """

    rounds: int = 3
    batch: int = 4
    seconds: float = 0.5

    def time_unit(
        self, unit: Unit, inputs: TensorLike, autocast: Autocasting, *, linked: bool = False, count: int = 1
    ) -> UnitSeconds:
        """Return the times of one step of a unit that saves everything, and of the replay of each call.

        With `linked`, also of the calls that make its output, where its input has the same layout. The chain has
        `count` units of this kind.
        """
        timed = few = inputs
        if inputs.device.type == "cpu":
            timed = inputs.first_samples(min(inputs.size[0], self.batch))
            few = inputs.first_samples(min(inputs.size[0], self.batch, _FEW_SAMPLES))
        # Values are made up, so that a network that checks them would refuse.
        with all_modes_off(), value_checks_off(), torch.random.fork_rng(), torch.enable_grad():
            run, modules = copy.deepcopy((unit.run, unit.modules), without_hooks(modules_of([unit])))
            round_of = partial(_TimedUnit(run, nn.ModuleList(modules), autocast).round, linked=linked)
            try:
                rounds = self._rounds(round_of, dict.fromkeys((few, timed)), count)
            except RuntimeError:  # what comes with some samples is only there for all: TNT's patches beside its pixels
                timed = few = inputs
                rounds = self._rounds(round_of, [inputs], count)
        (many, replays), (short, _) = _medians(rounds[timed]), _medians(rounds[few])
        scale = inputs.size[0] / timed.size[0]
        overhead = partial(_overhead, many, short, timed.size[0], few.size[0], inputs.size[0])
        (rerunning, rerun_fixed), (selective, selective_fixed) = overhead("rerunning"), overhead("selective")
        return UnitSeconds(
            scale * many["forward"],
            scale * many["backward"],
            scale * many["second run"] + rerunning,
            scale * (many["second run"] + many["after last saved"]) + rerunning,
            rerun_fixed,
            selective,
            selective_fixed,
            {name: scale * seconds for name, seconds in replays.items()},
        )

    def _rounds(
        self, round_of: Callable[[TensorLike], _Round], layouts: Iterable[TensorLike], count: int
    ) -> Mapping[TensorLike, Sequence[_Round]]:
        rounds: dict[TensorLike, list[_Round]] = {layout: [] for layout in layouts}
        for layout in rounds:
            round_of(layout)  # warms up
        started = time.perf_counter()
        least = math.ceil(self.rounds * math.sqrt(count))
        for number in range(2 * least):
            if number >= least and time.perf_counter() - started > self.seconds:
                break
            # In turn, so that what slows the machine down slows all of them.
            for layout, found in rounds.items():
                found.append(round_of(layout))
        return rounds

    def time_transfer(self, device: torch.device) -> Transfer:
        """Return how long bytes of `device` take to host memory and back.

        A first transfer, for which host memory is allocated, is not counted.
        """
        whole = torch.zeros(_TRANSFERRED_BYTES, dtype=torch.uint8, device=device)
        rounds = []
        for _ in range(1 + _TRANSFERS):
            started = _now(device)
            moved = HostCopy(whole)
            moved.leave()
            left = _now(device)
            moved.get()
            rounds.append((left - started, _now(device) - left))
        out, back = (statistics.median(seconds) / _TRANSFERRED_BYTES for seconds in zip(*rounds[1:], strict=True))
        return Transfer(out, back, overlaps=device.type != "cpu")


# The seconds of a unit's steps, each a forward and a backward pass, and of the calls that are made again.
_Round = tuple[Mapping[str, float], Mapping[str, float]]


def _medians(rounds: Sequence[_Round]) -> _Round:
    """Return the median of each, in proportion to the plain step of its round, which is slow when the round is.

    Medians, for a call of a microsecond is undisturbed at least once, and a pass of a second never: by the least of
    each, what is computed again would look shorter beside the step than it is.
    """
    plain = [steps["forward"] + steps["backward"] for steps, _ in rounds]

    def medians(found: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
        shares = {name: [one[name] / step for one, step in zip(found, plain, strict=True)] for name in found[0]}
        return {name: statistics.median(plain) * statistics.median(share) for name, share in shares.items()}

    return medians([steps for steps, _ in rounds]), medians([replays for _, replays in rounds])


def _overhead(
    many: Mapping[str, float], short: Mapping[str, float], timed: int, few: int, samples: int, of: str
) -> tuple[float, float]:
    """Return what a policy takes besides, and what of it is the same for any batch.

    It is that of `samples`, from the times of steps of `timed` and of `few`. What grows is that of the forward pass. In
    the backward pass, twice as long, it would be lost in what scatters.
    """
    forward, backward = f"{of}, forward", f"{of}, backward"
    growth = max(many[forward] - short[forward], 0.0) / (timed - few) if timed > few else 0.0
    fixed = max(short[forward] + short[backward] - few * growth, 0.0)
    return fixed + samples * growth, fixed


class _Step(NamedTuple):
    """Seconds of one step of a unit; `after_last_saved` is the part of the forward pass that autograd saves no more."""

    forward: float
    after_last_saved: float
    backward: float


@dataclass(frozen=True)
class _TimedUnit:
    run: Callable[[Tensor], Tensor]
    modules: nn.Module
    autocast: Autocasting

    def round(self, inputs: TensorLike, *, linked: bool) -> _Round:
        """Return what a step takes as it is, and more with the input alone saved, and with no result saved."""
        again, replays, links = (_Clock(inputs.device) for _ in range(3))
        plain = self._step(self.run, inputs)
        rerun = self._step(partial(run_recomputed, self.run, again("run", self.run), ()), inputs)
        selective = self._step(partial(run_selective, self.run, save=(), watch=replays), inputs)
        if linked:
            # The calls that only lead to the output run again for the input of a second unit.
            self._step(partial(run_selective, self.run, save=(), watch=links, linked=[self.run]), inputs)
        second_run = again.seconds.get("run", 0.0)  # none where autograd wants nothing
        steps = {
            "forward": plain.forward,
            "after last saved": plain.after_last_saved,
            "backward": plain.backward,
            "second run": second_run,
            "rerunning, forward": rerun.forward - plain.forward,
            "rerunning, backward": rerun.backward - plain.backward - second_run,
            "selective, forward": selective.forward - plain.forward,
            "selective, backward": selective.backward - plain.backward - sum(replays.seconds.values()),
        }
        return steps, links.seconds | replays.seconds

    def _step(self, run: Callable[[Tensor], Tensor], inputs: TensorLike) -> _Step:
        trigger = torch.zeros((), device=inputs.device, requires_grad=True)
        x = make_inputs(inputs, trigger)
        started = last_saved = _now(inputs.device)

        def pack(tensor: Tensor) -> Tensor:
            nonlocal last_saved
            last_saved = _now(inputs.device)
            return tensor

        with self.autocast(), saved_tensors_hooks(pack, lambda tensor: tensor):
            output = run(x)
        ended = _now(inputs.device)
        gradient = TensorLike.of(output).make()
        again = _now(inputs.device)
        if output.requires_grad:  # not where nothing up to here learns
            output.backward(gradient)
        finished = _now(inputs.device)
        self.modules.zero_grad()
        return _Step(ended - started, ended - last_saved, finished - again)


class _Clock:
    """Takes the time of functions, by name."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """`function`, timed under `name`."""

        def timed(*args: Any, **kwargs: Any) -> Tensor:
            started = _now(self._device)
            try:
                return function(*args, **kwargs)
            finally:  # a second run is stopped by an exception
                self.seconds[name] = self.seconds.get(name, 0.0) + _now(self._device) - started

        return timed


def _now(device: torch.device) -> float:
    synchronise(device)
    return time.perf_counter()
