"""How long a unit takes: measured on the device at hand, or estimated for one that is not."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from aerofuse.checkpointing.offload import HostCopy
from aerofuse.checkpointing.operations import MATRIX_PRODUCTS, CallNames, stack_shape, stacked_factors
from aerofuse.checkpointing.recompute import run_recomputed
from aerofuse.checkpointing.selective import run_selective
from aerofuse.common.hardware import synchronise
from aerofuse.memory.step import Precision
from aerofuse.planning.unit_bytes import TensorLike, make_inputs

Cast = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Overhead:
    """Seconds that checkpointing a unit takes besides what is computed again, at the batch in question.

    `fixed` are the same for any batch, as Python's are; `growing` are in proportion to it.
    """

    fixed: float
    growing: float = 0.0

    @property
    def seconds(self) -> float:
        """Return all of it."""
        return self.fixed + self.growing


@dataclass(frozen=True)
class UnitSeconds:
    """The time of a unit's forward and backward pass, and what it takes more when some of it is done again.

    `rerun` is a second run as far as the last tensor that autograd wants, where it may stop; `whole_rerun` one to the
    end; `rerunning` is what either takes besides. `replays` is what each call of a unit that saves some results only
    takes when it is made again; `selective` is what it takes to see the calls and to bring their results back.
    """

    forward: float
    backward: float
    rerun: float
    whole_rerun: float
    rerunning: Overhead
    selective: Overhead
    replays: Mapping[str, float]


@dataclass(frozen=True)
class Transfer:
    """Seconds per byte that goes to host memory, and per byte that comes back.

    `overlaps` says whether the device computes meanwhile.
    """

    out: float
    back: float
    overlaps: bool


class Stopwatch(Protocol):
    """Says how long a unit takes, and a byte on its way to host memory."""

    def time_unit(
        self,
        run: Callable[[Tensor], Tensor],
        parameters: Sequence[nn.Parameter],
        inputs: TensorLike,
        autocast: Cast,
        *,
        linked: bool = False,
        count: int = 1,
    ) -> UnitSeconds:
        """Return the times of one step of a unit that saves everything, and of the replay of each call.

        With `linked`, also of the calls that make its output, where its input has the same layout. The chain has
        `count` units of this kind.
        """

    def time_transfer(self, device: torch.device) -> Transfer:
        """Return how long bytes of `device` take to host memory and back."""


# Overhead is a difference of two steps, a millisecond or so, and most of it is Python's: the same for any number of
# samples. On a CPU the step of few is what it is not lost in. Two, for normalisation.
_FEW_SAMPLES = 2
_TRANSFERRED_BYTES = 2**26
_TRANSFERS = 5


@dataclass(frozen=True)
class Measured:
    """Real steps of a unit on its own device, the median of some rounds.

    Medians, for a call of a microsecond is undisturbed at least once, and a pass of a second never: by the least of
    each, what is computed again would look shorter beside the step than it is.

    There are `rounds` for a kind of which there is one unit. Of n units the time counts n times, with what it is off,
    and there are the square root of n times as many; and up to twice as many within `seconds`.

    On a CPU no more than `batch` samples are timed, and what is computed is taken to be in proportion.
    """

    rounds: int = 3
    batch: int = 4
    seconds: float = 0.5

    def time_unit(
        self,
        run: Callable[[Tensor], Tensor],
        parameters: Sequence[nn.Parameter],
        inputs: TensorLike,
        autocast: Cast,
        *,
        linked: bool = False,
        count: int = 1,
    ) -> UnitSeconds:
        """See `Stopwatch`."""
        samples = inputs.size[0]
        few = inputs
        if inputs.device.type == "cpu":
            inputs = inputs.first_samples(min(samples, self.batch))
            few = inputs.first_samples(min(samples, self.batch, _FEW_SAMPLES))
        unit = _TimedUnit(run, parameters, autocast)
        rounds: dict[TensorLike, list[_Round]] = {few: [], inputs: []}
        for layout in rounds:
            unit.round(layout, linked=linked)  # warms up
        started = time.perf_counter()
        least = math.ceil(self.rounds * math.sqrt(count))
        for number in range(2 * least):
            if number >= least and time.perf_counter() - started > self.seconds:
                break
            # In turn, so that what slows the machine down slows all of them.
            for layout, found in rounds.items():
                found.append(unit.round(layout, linked=linked and layout == inputs))
        many, short = _Round.middle(rounds[inputs]), _Round.middle(rounds[few])
        overhead = partial(_overhead, of=samples, timed=inputs.size[0], few=few.size[0])
        scale = samples / inputs.size[0]
        return UnitSeconds(
            scale * many.forward,
            scale * many.backward,
            scale * many.second_run,
            scale * (many.second_run + many.after_last_saved),
            overhead(many.rerunning, short.rerunning),
            overhead(many.selective, short.selective),
            {name: scale * seconds for name, seconds in many.replays.items()},
        )

    def time_transfer(self, device: torch.device) -> Transfer:
        """See `Stopwatch`. A first transfer, for which host memory is allocated, is not counted."""
        whole = torch.zeros(_TRANSFERRED_BYTES, dtype=torch.uint8, device=device)
        rounds = [_time_transfer(whole) for _ in range(1 + _TRANSFERS)]
        out, back = (statistics.median(seconds) / _TRANSFERRED_BYTES for seconds in zip(*rounds[1:], strict=True))
        return Transfer(out, back, overlaps=device.type != "cpu")


def _time_transfer(whole: Tensor) -> tuple[float, float]:
    """Return the seconds of a storage's way to host memory, and of that back."""
    started = _now(whole.device)
    copy = HostCopy(whole)
    copy.leave()
    left = _now(whole.device)
    copy.get()
    return left - started, _now(whole.device) - left


def _overhead(many: _More, short: _More, *, of: int, timed: int, few: int) -> Overhead:
    """For `of` samples, from steps of `timed` and of `few`.

    What grows is that of the forward pass. In the backward pass, twice as long, it would be lost in what scatters.
    """
    growth = max(many.forward - short.forward, 0.0) / (timed - few) if timed > few else 0.0
    return Overhead(max(short.forward + short.backward - few * growth, 0.0), of * growth)


@dataclass(frozen=True)
class _More:
    """Seconds that a checkpointed unit's passes take more than the plain unit's."""

    forward: float
    backward: float


@dataclass(frozen=True)
class _Round:
    """Seconds of a unit's steps, each a forward and a backward pass, under three policies.

    - As it is: `forward` and `backward`, and `after_last_saved`, the part of the forward pass after the last tensor
      that autograd wants.
    - With its input alone saved: the `second_run`, and what `rerunning` takes besides.
    - With no result saved: `replays`, the calls that are made again, and what `selective` takes besides.
    """

    forward: float
    after_last_saved: float
    backward: float
    second_run: float
    rerunning: _More
    selective: _More
    replays: Mapping[str, float]

    @classmethod
    def middle(cls, rounds: Sequence[_Round]) -> _Round:
        """Return the median of each, in proportion to the plain step of its round, which is slow when the round is."""
        plain = statistics.median(one.plain for one in rounds)

        def middle(seconds: Iterable[float]) -> float:
            return plain * statistics.median(part / one.plain for part, one in zip(seconds, rounds, strict=True))

        def more(passes: Sequence[_More]) -> _More:
            return _More(middle(one.forward for one in passes), middle(one.backward for one in passes))

        return cls(
            middle(one.forward for one in rounds),
            middle(one.after_last_saved for one in rounds),
            middle(one.backward for one in rounds),
            middle(one.second_run for one in rounds),
            more([one.rerunning for one in rounds]),
            more([one.selective for one in rounds]),
            {name: middle(one.replays[name] for one in rounds) for name in rounds[0].replays},
        )

    @property
    def plain(self) -> float:
        """Return a step of the unit as it is."""
        return self.forward + self.backward


@dataclass(frozen=True)
class _TimedUnit:
    run: Callable[[Tensor], Tensor]
    parameters: Sequence[nn.Parameter]
    autocast: Cast

    def round(self, inputs: TensorLike, *, linked: bool = False) -> _Round:
        """Each step once."""
        plain = self._step(self.run, inputs)
        second = _Clock(inputs.device)
        again = second("run", self.run)
        recomputed = self._step(partial(run_recomputed, self.run, again, ()), inputs)
        second_run = second.seconds.get("run", 0.0)  # none where autograd wants nothing
        replays = _Clock(inputs.device)
        selective = self._step(partial(run_selective, self.run, save=(), watch=replays), inputs)
        outputs = _Clock(inputs.device)
        if linked:
            # The calls that only lead to the output run again for the input of a second unit.
            self._step(partial(run_selective, self.run, save=(), watch=outputs, linked=[self.run]), inputs)
        return _Round(
            plain.forward,
            plain.after_last_saved,
            plain.backward,
            second_run,
            recomputed.more_than(plain, second_run),
            selective.more_than(plain, sum(replays.seconds.values())),
            outputs.seconds | replays.seconds,
        )

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
        for parameter in self.parameters:
            parameter.grad = None
        return _Step(ended - started, ended - last_saved, finished - again)


@dataclass(frozen=True)
class _Step:
    """Seconds of one step of a unit; `after_last_saved` is the part of the forward pass that autograd saves no more."""

    forward: float
    after_last_saved: float
    backward: float

    def more_than(self, plain: _Step, again: float) -> _More:
        """Return what this step takes more, besides the seconds of what it computes `again` in its backward pass."""
        return _More(self.forward - plain.forward, self.backward - plain.backward - again)


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


@dataclass(frozen=True)
class Estimated:
    """Arithmetic and traffic counted call by call, divided by what a device is good for; runs on fake tensors.

    The rates are those that networks reach, not those of data sheets. Plans need their ratio more than their size.
    """

    flops_per_second: float
    bytes_per_second: float
    seconds_per_call: float = 1e-6
    host_bytes_per_second: float = 2e10

    def time_unit(
        self,
        run: Callable[[Tensor], Tensor],
        parameters: Sequence[nn.Parameter],
        inputs: TensorLike,
        autocast: Cast,
        *,
        linked: bool = False,  # noqa: ARG002  # every call is estimated
        count: int = 1,  # noqa: ARG002  # and does not scatter
    ) -> UnitSeconds:
        """See `Stopwatch`."""
        trigger = torch.zeros((), device=inputs.device, requires_grad=True)
        x = make_inputs(inputs, trigger)
        estimate = _Estimate(self)
        rerun = 0.0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal rerun
            rerun = sum(estimate.seconds.values())
            return tensor

        with autocast(), estimate, saved_tensors_hooks(pack, lambda tensor: tensor):
            run(x)
        learns = any(parameter.requires_grad for parameter in parameters)
        # A product has two gradients of its own size; other calls read and write about half as much again.
        products = estimate.products * (int(inputs.requires_grad) + int(learns))
        forward = sum(estimate.seconds.values())
        backward = products + 1.5 * estimate.others
        selective = Overhead(self.seconds_per_call * len(estimate.seconds))
        return UnitSeconds(forward, backward, rerun, forward, Overhead(0.0), selective, estimate.seconds)

    def time_transfer(self, device: torch.device) -> Transfer:  # noqa: ARG002  # it is not at hand
        """See `Stopwatch`."""
        return Transfer(1 / self.host_bytes_per_second, 1 / self.host_bytes_per_second, overlaps=True)


# What networks reach on one large GPU of the day. Estimated times depend on the ratio of the two rates, which differs
# little from one GPU to the next.
LARGE_GPU: Mapping[Precision, Estimated] = {"float32": Estimated(4e13, 1.5e12), "bf16": Estimated(2e14, 1.5e12)}


class _Estimate(TorchFunctionMode):
    def __init__(self, rates: Estimated) -> None:
        super().__init__()
        self._rates = rates
        self._names = CallNames()
        self.seconds: dict[str, float] = {}
        self.products = self.others = 0.0

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        name = self._names.next(getattr(func, "__name__", ""))
        with FlopCounterMode(display=False) as counter:
            result = func(*args, **(kwargs or {}))
        results = result if isinstance(result, (list, tuple)) else (result,)
        read = [item.untyped_storage() for item in args if isinstance(item, Tensor)]
        made = [item.untyped_storage() for item in results if isinstance(item, Tensor)]
        function = name.partition(".")[0]
        is_view = all(any(new is old for old in read) for new in made) and not function.endswith("_")
        if not made or is_view:
            return result
        moved = sum(storage.nbytes() for storage in (*read, *made))
        seconds = (
            counter.get_total_flops() / self._rates.flops_per_second
            + moved / self._rates.bytes_per_second
            + self._rates.seconds_per_call
        )
        self.seconds[name] = seconds
        if function in MATRIX_PRODUCTS:
            self.products += seconds
        else:
            self.others += seconds
        if function == "matmul":
            self._note_copies(name, stacked_factors(args, kwargs or {}) or {})
        return result

    def _note_copies(self, name: str, factors: Mapping[str, Tensor]) -> None:
        for side, factor in factors.items():
            storage = factor.reshape(stack_shape(factor)).untyped_storage()
            if storage is not factor.untyped_storage():
                seconds = 2 * storage.nbytes() / self._rates.bytes_per_second + self._rates.seconds_per_call
                self.seconds[f"{name}.{side}"] = seconds
                self.others += seconds
