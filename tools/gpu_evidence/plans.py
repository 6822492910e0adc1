"""Training without checkpointing, under timm's switch and under plans: memory and time, predicted and measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch

from aerofuse.checkpointing.budget import Budget
from aerofuse.memory.optimizers import OptimizerName
from aerofuse.memory.step import Precision
from aerofuse.planning.clocks import Measured
from aerofuse.planning.planner import Planner
from tools.benchmarks.measuring import compare_times, count, time_ways
from tools.benchmarks.rows import AT_HALF, AT_SWITCH, BASELINE, LEAST, MONET_UNCHECKED_GB, SWITCH
from tools.benchmarks.subjects import Subject, backbone_subject
from tools.benchmarks.ways import Way, follow, plain_ways
from tools.gpu_evidence.evidence import attempt
from tools.gpu_evidence.names import MONET_WAYS, OK, Row
from tools.gpu_evidence.sizes import EvidenceSizes

# Of a planner and of the activations under timm's switch, in bytes: the budget of each plan, by name.
Budgets = Callable[[Planner, int], Mapping[str, Budget]]


@dataclass(frozen=True)
class PlanRow:
    """One way to train one network. Bytes are all that a step holds at most, times over those of the baseline.

    `peak_bytes` is `torch.cuda.max_memory_allocated`, less what was there for others, and `reserved_bytes` what the
    allocator took from the device for it; on a CPU bytes are counted. What was not measured is `None`, and `outcome`
    says why.
    """

    network: str
    way: str
    precision: str
    input_shape: str
    optimizer: str | None
    predicted_peak_bytes: int | None = None
    peak_bytes: int | None = None
    reserved_bytes: int | None = None
    predicted_time_ratio: float | None = None
    time_ratio: float | None = None
    time_ratio_error: float | None = None
    seconds: float | None = None
    outcome: str = OK


def at_switch_half_and_least(planner: Planner, switch_bytes: int) -> dict[str, Budget]:
    """Return the budgets of the benchmark's plans, as shares of the activations."""
    baseline_bytes = planner.baseline.activation_bytes
    least_bytes = planner.least(counts_everything=False).activation_bytes
    shares = {AT_SWITCH: min(switch_bytes / baseline_bytes, 1.0), AT_HALF: 0.5, LEAST: least_bytes / baseline_bytes}
    return {name: Budget(share=share) for name, share in shares.items()}


def at_monets_shares(planner: Planner, switch_bytes: int) -> dict[str, Budget]:  # noqa: ARG001  # as all `Budgets`
    """Return MONeT's published budgets, as shares of all that a step takes."""
    baseline_bytes = planner.baseline.peak_bytes
    return {
        name: Budget(num_bytes=round(memory_gb / MONET_UNCHECKED_GB * baseline_bytes))
        for name, (memory_gb, _) in MONET_WAYS.items()
    }


def gate_rows(sizes: EvidenceSizes) -> list[Row]:
    """Train the hybrid in its last phase, where all of it learns, with AdamW in bf16."""
    plans = _Plans(sizes.hybrid_subject(), sizes.hybrid_batch, "bf16", "adamw")
    return plans.measure(at_switch_half_and_least, sizes)


def network_rows(sizes: EvidenceSizes, network: str, *, offload: bool = False) -> list[Row]:
    """Train one network in bf16; with `offload` under plans that may let what is saved wait in host memory."""
    subject = backbone_subject(network, sizes.image_size_px, sizes.device)
    return _Plans(subject, sizes.batch, "bf16", offload=offload).measure(at_switch_half_and_least, sizes)


def monet_rows(sizes: EvidenceSizes) -> list[Row]:
    """Train ResNet-50 in float32 within MONeT's budgets."""
    subject = backbone_subject(sizes.monet_network, sizes.image_size_px, sizes.device)
    return _Plans(subject, sizes.monet_batch, "float32").measure(at_monets_shares, sizes)


@dataclass(frozen=True)
class _Plans:
    """A step of a network, which is planned for and run."""

    subject: Subject
    batch: int
    precision: Precision
    optimizer: OptimizerName | None = None
    offload: bool = False

    def measure(self, budgets: Budgets, sizes: EvidenceSizes) -> list[Row]:
        """Plan, then run a step of each way for its memory, then all that fit side by side for their times."""
        ways, rows = self._plan(budgets)
        for name, way in ways.items():
            rows[name] = self._with_peak(rows[name], way)
        fitting = {name: way for name, way in ways.items() if rows[name].outcome == OK}
        if BASELINE in fitting:
            timed, outcome = attempt(
                partial(time_ways, fitting, self.subject, self.batch, self.precision, sizes.rounds, sizes.timing_s)
            )
            for name in fitting:
                rows[name] = replace(rows[name], outcome=outcome)
                if timed is not None:
                    times = compare_times(timed[name], self.batch)
                    rows[name] = replace(
                        rows[name],
                        time_ratio=times.time_ratio,
                        time_ratio_error=times.time_ratio_error,
                        seconds=times.seconds,
                    )
        return [asdict(row) for row in rows.values()]

    def _plan(self, budgets: Budgets) -> tuple[dict[str, Way], dict[str, PlanRow]]:
        """Return the ways to train, and their rows with what is predicted."""
        subject, shape = self.subject, self.subject.input_shape(self.batch)
        plain = plain_ways(subject.model)
        ways = {name: plain[name] for name in (BASELINE, SWITCH)}
        planner = Planner(
            subject.model,
            shape,
            optimizer=self.optimizer,
            precision=self.precision,
            input_dtype=subject.input_dtype,
            stopwatch=Measured(batch=self.batch),
            offload=self.offload,
        )
        switch = count(ways[SWITCH], subject, self.batch, self.precision, optimizer=self.optimizer)
        # What an optimiser holds for a moment is no activation.
        passes = count(ways[SWITCH], subject, self.batch, self.precision) if self.optimizer else switch
        size = "x".join(map(str, shape))
        row = partial(PlanRow, subject.variant, precision=self.precision, input_shape=size, optimizer=self.optimizer)
        rows = {
            BASELINE: row(BASELINE, predicted_peak_bytes=planner.baseline.peak_bytes, predicted_time_ratio=1.0),
            SWITCH: row(SWITCH, predicted_peak_bytes=switch.peak_bytes),
        }
        for name, budget in budgets(planner, passes.peak_activation_bytes).items():
            try:
                plan = planner.plan(budget)
            except ValueError as error:  # below the least
                rows[name] = row(name, outcome=str(error).partition("; ")[0])
                continue
            ways[name] = follow(plan, subject.model)
            predicted = plan.predicted
            rows[name] = row(name, predicted_peak_bytes=predicted.peak_bytes, predicted_time_ratio=predicted.time_ratio)
        return ways, rows

    def _with_peak(self, row: PlanRow, way: Way) -> PlanRow:
        on_cuda = self.subject.device.type == "cuda"
        if on_cuda:
            torch.cuda.empty_cache()  # what planning left reserved
            torch.cuda.reset_peak_memory_stats(self.subject.device)
        report, outcome = attempt(
            lambda: count(way, self.subject, self.batch, self.precision, optimizer=self.optimizer, fake=False)
        )
        reserved_bytes = torch.cuda.max_memory_reserved(self.subject.device) if on_cuda else None
        if report is None:
            return replace(row, outcome=outcome)
        return replace(row, peak_bytes=report.peak_bytes, reserved_bytes=reserved_bytes)
