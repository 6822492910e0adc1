"""How long a unit takes: measured on the device at hand, or estimated for one that is not."""

from __future__ import annotations

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
from aerofuse.checkpointing.operations import MATRIX_PRODUCTS, CallNames, stack_shape, stacked_factors
from aerofuse.checkpointing.recompute import run_recomputed
from aerofuse.checkpointing.thin import run_thinned

Cast = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class UnitSeconds:
    """The time of a unit's forward and backward pass, and what it takes more when some of it is done again.

    `rerun` is a second run as far as the last tensor that autograd wants, where it may stop; `whole_rerun` one to the
    end. `watching` is what a unit that keeps some results only takes to see its calls and to bring them back, and
    `replays` what each call takes when it is made again.
    """

    forward: float
    backward: float
    rerun: float
    whole_rerun: float
    watching: float
    replays: Mapping[str, float]


class Stopwatch(Protocol):
    """Says how long a unit takes."""

    def time_unit(
        self,
        run: Callable[[Tensor], Tensor],
        parameters: Sequence[nn.Parameter],
        inputs: TensorLike,
        autocast: Cast,
        *,
        linked: bool = False,
    ) -> UnitSeconds:
        """The times of one step of a unit that keeps everything, and of the replay of each call.

        With `linked`, also of the calls that make its output, where its input has the same layout.
        """


@dataclass(frozen=True)
class Measured:
    """Real steps of a unit on its own device: the least of `rounds`, because what disturbs only adds.

    On a CPU no more than `batch` samples are timed, and the rest is taken to be in proportion.
    """

    rounds: int = 3
    batch: int = 4

    def time_unit(
        self,
        run: Callable[[Tensor], Tensor],
        parameters: Sequence[nn.Parameter],
        inputs: TensorLike,
        autocast: Cast,
        *,
        linked: bool = False,
    ) -> UnitSeconds:
        """See `Stopwatch`."""
        samples = inputs.size[0]
        if inputs.device.type == "cpu" and samples > self.batch:
            inputs = inputs.first_samples(self.batch)
        scale = samples / inputs.size[0]
        plain, thinned, recomputed = _Steps(), _Steps(), _Steps()
        replays: dict[str, list[float]] = {}
        outputs: dict[str, list[float]] = {}

        def again(x: Tensor) -> Tensor:
            return run_recomputed(run, run, lambda: iter(()), x)

        for _ in range(self.rounds + 1):
            # In turn, so that what slows the machine down slows all three.
            plain.add(self._step(run, parameters, inputs, autocast))
            watch = _Replays(inputs.device)
            step = self._step(partial(run_thinned, run, keep=(), watch=watch), parameters, inputs, autocast)
            thinned.add(step, less=sum(watch.seconds.values()))
            for name, seconds in watch.seconds.items():
                replays.setdefault(name, []).append(seconds)
            recomputed.add(self._step(again, parameters, inputs, autocast))
            if linked:
                # The calls that only lead to the output run again for the input of a second unit.
                watch = _Replays(inputs.device)
                twice = partial(run_thinned, run, keep=(), watch=watch, linked=[run])
                self._step(twice, parameters, inputs, autocast)
                for name, seconds in watch.seconds.items():
                    outputs.setdefault(name, []).append(seconds)
        rerun = max(recomputed.whole - plain.whole, 0.0)
        replays = outputs | replays
        return UnitSeconds(
            scale * plain.forward,
            scale * plain.backward,
            scale * rerun,
            scale * (rerun + plain.after_last_saved),
            scale * max(thinned.whole - plain.whole, 0.0),
            {name: scale * min(seconds[1:]) for name, seconds in replays.items()},
        )

    def _step(
        self, run: Callable[[Tensor], Tensor], parameters: Sequence[nn.Parameter], inputs: TensorLike, autocast: Cast
    ) -> _Step:
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
        return _Step(ended - started, ended - last_saved, finished - again)


@dataclass(frozen=True)
class _Step:
    """Seconds of one step of a unit; `after_last_saved` is the part of the forward pass that autograd saves no more."""

    forward: float
    after_last_saved: float
    backward: float


class _Steps:
    """Steps of one kind, the first of which warms up."""

    def __init__(self) -> None:
        self._steps: list[_Step] = []
        self._whole: list[float] = []

    def add(self, step: _Step, less: float = 0.0) -> None:
        """One more, of which `less` seconds do not count."""
        self._steps.append(step)
        self._whole.append(step.forward + step.backward - less)

    @property
    def forward(self) -> float:
        return min(step.forward for step in self._steps[1:])

    @property
    def after_last_saved(self) -> float:
        return min(step.after_last_saved for step in self._steps[1:])

    @property
    def backward(self) -> float:
        return min(step.backward for step in self._steps[1:])

    @property
    def whole(self) -> float:
        return min(self._whole[1:])


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
        self,
        run: Callable[[Tensor], Tensor],
        parameters: Sequence[nn.Parameter],
        inputs: TensorLike,
        autocast: Cast,
        *,
        linked: bool = False,  # noqa: ARG002  # every call is estimated
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
        watching = self.seconds_per_call * len(estimate.seconds)
        return UnitSeconds(forward, backward, rerun, forward, watching, estimate.seconds)


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
