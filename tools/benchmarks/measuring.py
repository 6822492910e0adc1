"""Measuring one way to train a network: peaks, times, and whether it changes a bit."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from aerofuse.common.hardware import seconds_of
from aerofuse.memory.optimizers import OptimizerName
from aerofuse.memory.report import Kind, MemoryReport
from aerofuse.memory.step import Precision, count_training_step
from tools.benchmarks.rows import BASELINE, SEGMENTS, Differences, PeakCheck, Peaks, Times
from tools.benchmarks.subjects import Subject
from tools.benchmarks.ways import Way

_FEW_SAMPLES = 2  # as many as statistics over a batch need


def count(
    way: Way,
    subject: Subject,
    batch: int,
    precision: Precision,
    *,
    optimizer: OptimizerName | None = None,
    fake: bool = True,
) -> MemoryReport:
    """What one step of `batch` samples holds, on fake tensors or on real ones."""
    return count_training_step(
        way.prepare(batch),
        subject.input_shape(batch),
        optimizer=optimizer,
        precision=precision,
        input_dtype=subject.input_dtype,
        fake=fake,
    )


def find_segments(ways: Mapping[str, Way], subject: Subject) -> None:
    """Let a network look for its segments, which the first step does on two samples, before its steps are counted."""
    count(ways[SEGMENTS], subject, 2, "float32", fake=False)


def count_peaks(
    way: Way, subject: Subject, batch: int, precision: Precision, report: MemoryReport, baseline: Peaks | None
) -> Peaks:
    """The peaks of a step with AdamW; `report` is of the same without. `baseline` is what to compare with."""
    whole = count(way, subject, batch, precision, optimizer="adamw")
    peak_bytes = report.peak_activation_bytes
    if baseline is None:
        peak_ratio, largest_batch = 1.0, batch
    else:
        peak_ratio = peak_bytes / baseline.peak_bytes
        # Activations grow with the batch, and most else does not: about what fits, so that little is left to guess.
        near = max(batch + 1, round(batch / peak_ratio))
        per_sample = (count(way, subject, near, precision).peak_bytes - report.peak_bytes) / (near - batch)
        largest_batch = max(0, int(batch + (baseline.total_peak_bytes - whole.peak_bytes) / per_sample))
    by_kind = {f"{kind}_bytes": whole.at_peak[kind] for kind in Kind}
    return Peaks(peak_bytes, round(peak_ratio, 4), whole.peak_bytes, **by_kind, largest_batch=largest_batch)


def check_peak(way: Way, subject: Subject, batch: int, precision: Precision, scale: float = 1.0) -> PeakCheck:
    """What a real step holds beside what was predicted of it, by a count on fake tensors times `scale`."""
    expected = count(way, subject, batch, precision)
    found = count(way, subject, batch, precision, fake=False)
    if subject.device.type == "cuda":
        predicted, measured = expected.peak_bytes, found.peak_bytes
    else:
        predicted, measured = expected.peak_activation_bytes, found.peak_activation_bytes
    predicted = round(scale * predicted)
    shape = "x".join(map(str, subject.input_shape(batch)))
    return PeakCheck(shape, predicted, measured, round(predicted / measured - 1, 5))


@dataclass(frozen=True)
class TimedStep:
    """Seconds of a step, and of one without checkpointing: the mean of those that ran before and after it."""

    seconds: float
    baseline_seconds: float


def time_ways(
    ways: Mapping[str, Way], subject: Subject, batch: int, precision: Precision, rounds: int, timing_s: float = 0
) -> dict[str, list[TimedStep]]:
    """The steps of each way, one per round, each between two without checkpointing. A first round is not counted.

    One of them is itself without checkpointing: how far it is from its neighbours is how much the machine scatters.
    There are more than `rounds` of them where they take less than `timing_s` in all: short steps scatter more.
    Raises `KeyError` where there is no way without checkpointing.
    """
    inputs = subject.inputs(batch)
    timed: dict[str, list[TimedStep]] = {name: [] for name in ways}
    spent = 0.0
    with tqdm(desc="steps timed", unit="step", leave=False, disable=None) as steps:

        def run(name: str) -> float:
            steps.update()
            model = ways[name].prepare(batch)
            # In the first step after a switch a network finds its units, which a training does once.
            _loss(model, inputs[:_FEW_SAMPLES], precision).backward()
            return _seconds_of_step(model, inputs, precision)

        baseline = run(BASELINE)
        for number in itertools.count():
            for name in ways:
                # What slows the machine down for a while slows a step and its two neighbours.
                before, elapsed, baseline = baseline, run(name), run(BASELINE)
                if number:
                    timed[name].append(TimedStep(elapsed, (before + baseline) / 2))
                    spent += elapsed + baseline
            if number >= rounds and spent >= timing_s:
                return timed
    raise AssertionError("counting has no end")


def _seconds_of_step(model: nn.Module, inputs: Tensor, precision: Precision) -> float:
    elapsed = seconds_of(lambda: _loss(model, inputs, precision).backward(), inputs.device)
    model.zero_grad()
    return elapsed


def compare_times(steps: Sequence[TimedStep], batch: int) -> Times:
    """The ratios of the rounds, one by one: their median and quartiles.

    The standard error takes them to be normally distributed but for a few: 1.253 deviations over the root of how many
    there are (Kendall and Stuart, The Advanced Theory of Statistics, volume 1), the quartiles being 1.349 apart.
    """
    ratios = [step.seconds / step.baseline_seconds for step in steps]
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    error = 1.253 * (high - low) / 1.349 / math.sqrt(len(ratios)) if len(ratios) > 2 else None
    seconds = statistics.median(step.seconds for step in steps)
    return Times(
        batch,
        round(middle, 4),
        round(low, 4),
        round(high, 4),
        None if error is None else round(error, 4),
        round(seconds, 4),
    )


@dataclass(frozen=True)
class StepOutcome:
    """What two training steps compute and leave behind: two losses, the second's gradients, buffers, random state."""

    losses: Sequence[Tensor]
    gradients: Sequence[Tensor]
    buffers: Sequence[Tensor]
    random_state: Tensor

    def compare(self, baseline: StepOutcome) -> Differences:
        """How many tensors differ in any bit from those of the baseline run."""
        return Differences(
            losses_that_differ=_count_different(self.losses, baseline.losses),
            gradients=len(self.gradients),
            gradients_that_differ=_count_different(self.gradients, baseline.gradients),
            buffers=len(self.buffers),
            buffers_that_differ=_count_different(self.buffers, baseline.buffers),
            random_states_that_differ=_count_different([self.random_state], [baseline.random_state]),
        )


def _count_different(found: Sequence[Tensor], expected: Sequence[Tensor]) -> int:
    return sum(not torch.equal(*pair) for pair in zip(found, expected, strict=True))


def two_steps(way: Way, subject: Subject, inputs: Tensor) -> StepOutcome:
    """Two steps in float32 with stochastic gradient descent, always from the same random state."""
    model = way.prepare(len(inputs))
    with _put_back(subject.model):
        optimizer = torch.optim.SGD(subject.model.parameters(), lr=1e-3)
        torch.manual_seed(2)
        losses = []
        for _ in range(2):
            optimizer.zero_grad()
            loss = _loss(model, inputs, "float32")
            loss.backward()
            losses.append(loss.detach())
            # Statistics of two images make gradients of any size.
            nn.utils.clip_grad_norm_(subject.model.parameters(), 1.0)
            optimizer.step()
        return StepOutcome(
            losses,
            [parameter.grad for parameter in subject.model.parameters() if parameter.grad is not None],
            [buffer.clone() for buffer in subject.model.buffers()],
            torch.get_rng_state(),
        )


@contextmanager
def _put_back(model: nn.Module) -> Iterator[None]:
    """Afterwards the model has its weights and buffers again, no gradients, and the random state is as before."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            model.load_state_dict(before)
            model.zero_grad()


def _loss(model: nn.Module, inputs: Tensor, precision: Precision) -> Tensor:
    """The mean square of all that a model returns, a scalar."""
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=precision == "bf16"):
        outputs: Any = model(inputs)
    tensors = outputs.values() if isinstance(outputs, Mapping) else [outputs]
    return torch.stack([tensor.float().square().mean() for tensor in tensors]).sum()
