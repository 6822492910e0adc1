"""How long a unit takes: measured on the device at hand, or estimated for one that is not."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from aerofuse.checkpointing.counting import TensorLike, make_inputs
from aerofuse.checkpointing.operations import MATRIX_PRODUCTS, CallNames
from aerofuse.checkpointing.thin import run_thinned

Cast = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class UnitSeconds:
    """The time of a unit's forward and backward pass, and of each of its calls when it is made again.

    `rerun` is the forward pass as far as the last tensor that autograd wants, where a second run may stop;
    `watching` is what it takes to see each call of a unit that keeps some results only.
    """

    forward: float
    rerun: float
    backward: float
    watching: float
    replays: Mapping[str, float]


class Stopwatch(Protocol):
    """Says how long a unit takes."""

    def time_unit(
        self, run: Callable[[Tensor], Tensor], parameters: Sequence[nn.Parameter], inputs: TensorLike, autocast: Cast
    ) -> UnitSeconds:
        """The times of one step of a unit that keeps everything, and of the replay of each call."""


@dataclass(frozen=True)
class Measured:
    """Real steps of a unit on its own device: the least of `rounds`, because what disturbs only adds.

    On a CPU no more than `batch` samples are timed, and the rest is taken to be in proportion.
    """

    rounds: int = 3
    batch: int = 4

    def time_unit(
        self, run: Callable[[Tensor], Tensor], parameters: Sequence[nn.Parameter], inputs: TensorLike, autocast: Cast
    ) -> UnitSeconds:
        """See `Stopwatch`."""
        samples = inputs.size[0]
        if inputs.device.type == "cpu" and samples > self.batch:
            inputs = inputs.first_samples(self.batch)
        scale = samples / inputs.size[0]
        steps = [self._step(run, parameters, inputs, autocast) for _ in range(self.rounds + 1)]
        forward, rerun, backward = (min(times) for times in zip(*steps[1:], strict=True))  # the first warms up
        replays: dict[str, list[float]] = {}
        for _ in range(self.rounds):
            watch = _Replays(inputs.device)
            self._step(partial(run_thinned, run, keep=(), watch=watch), parameters, inputs, autocast)
            for name, seconds in watch.seconds.items():
                replays.setdefault(name, []).append(seconds)
        least = {name: scale * min(seconds) for name, seconds in replays.items()}
        return UnitSeconds(scale * forward, scale * rerun, scale * backward, seconds_of_watching(), least)

    def _step(
        self, run: Callable[[Tensor], Tensor], parameters: Sequence[nn.Parameter], inputs: TensorLike, autocast: Cast
    ) -> tuple[float, float, float]:
        trigger = torch.zeros((), device=inputs.device, requires_grad=True)
        x = make_inputs(inputs, trigger)
        started = last_saved = _now(inputs.device)

        def pack(tensor: Tensor) -> Tensor:
            nonlocal last_saved
            last_saved = _now(inputs.device)
            return tensor

        with autocast(), saved_tensors_hooks(pack, lambda tensor: tensor):
            output = run(x)
        ended = _now(inputs.device)
        gradient = TensorLike.of(output).make()
        again = _now(inputs.device)
        output.backward(gradient)
        finished = _now(inputs.device)
        for parameter in parameters:
            parameter.grad = None
        return ended - started, last_saved - started, finished - again


@functools.cache
def seconds_of_watching() -> float:
    """What one call costs more inside of a unit that keeps some results only, forward and backward, on this machine.

    The calls' own time is left out.
    """
    calls = 100
    x = torch.zeros(8, requires_grad=True)

    def run(inputs: Tensor) -> Tensor:
        for _ in range(calls):
            inputs = inputs.sigmoid()  # which autograd saves
        return inputs

    def seconds(way: Callable[[Tensor], Tensor]) -> float:
        started = time.perf_counter()
        way(x).backward(x.detach())
        return time.perf_counter() - started

    with torch.enable_grad():
        plain = min(seconds(run) for _ in range(5))
        watch = _Replays(x.device)
        watched = min(seconds(partial(run_thinned, run, keep=(), watch=watch)) for _ in range(5))
    again = sum(watch.seconds.values()) / 5
    return max(watched - plain - again, 0.0) / calls


class _Replays:
    """Takes the time of what is computed again."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """`function`, timed under `name`."""

        def timed(*args: Any, **kwargs: Any) -> Tensor:
            started = _now(self._device)
            result = function(*args, **kwargs)
            self.seconds[name] = self.seconds.get(name, 0.0) + _now(self._device) - started
            return result

        return timed


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@dataclass(frozen=True)
class Estimated:
    """Arithmetic and traffic counted call by call, divided by what a device is good for; runs on fake tensors.

    The rates are those that networks reach, not those of data sheets. Plans need their ratio more than their size.
    """

    flops_per_second: float
    bytes_per_second: float
    seconds_per_call: float = 1e-6

    def time_unit(
        self, run: Callable[[Tensor], Tensor], parameters: Sequence[nn.Parameter], inputs: TensorLike, autocast: Cast
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
        return UnitSeconds(forward, rerun, backward, self.seconds_per_call, estimate.seconds)


class _Estimate(TorchFunctionMode):
    def __init__(self, rates: Estimated) -> None:
        super().__init__()
        self._rates = rates
        self._names = CallNames()
        self.seconds: dict[str, float] = {}
        self.products = self.others = 0.0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = self._names.next(func)
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
        return result
