"""All ways to train one network side by side: the rows of the benchmark's table."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from tqdm.auto import tqdm

from aerofuse.common.hardware import device_name
from aerofuse.memory.report import MemoryReport
from aerofuse.memory.step import Precision
from aerofuse.planning.clocks import Measured
from aerofuse.planning.estimates import Estimated, Stopwatch
from aerofuse.planning.planner import Planner
from aerofuse.planning.seen_before import nothing_seen_before
from tools.benchmarks.measuring import (
    check_peak,
    compare_times,
    count,
    count_peaks,
    find_segments,
    time_ways,
    two_steps,
)
from tools.benchmarks.results import FOLDER, BenchmarkSettings, Machine, Results
from tools.benchmarks.rows import BASELINE, LEAST, Differences, PeakCheck, Peaks, Promise, Row, Times, as_table
from tools.benchmarks.subjects import Subject
from tools.benchmarks.ways import Way, plain_ways, planned_shares, planned_ways

if TYPE_CHECKING:  # a machine that only measures may lack it
    import pandas as pd

logger = logging.getLogger(__name__)

# Two steps are compared on so many samples, and on no more than a plan is for.
_EXACT_BATCH = 2
# A step in bf16 takes most CPUs minutes, so that only its bytes are of interest there: of one plan, on small images.
_SMALL_IMAGE_PX = 64
_BF16_ON_CPU = Estimated(flops_per_second=1e11, bytes_per_second=1e10)
_CURVE_PLANS = 8  # between the least memory and all of it, beside those that are measured


def machine(device: torch.device) -> Machine:
    """What runs this, today."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return Machine(device_name(device), torch.__version__, today)


def write_table(table: pd.DataFrame, what: str, device: torch.device | str = "cpu") -> None:
    """Write a table of measurements as CSV, named by what it is of and what it was made on, and log it."""
    path = FOLDER / f"{machine(torch.device(device)).name(what)}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False, lineterminator="\n")
    logger.info("%s\nwritten to %s", table.to_string(index=False), path)


def measure(subject: Subject, settings: BenchmarkSettings) -> Results:
    """Every way to train the network, in every precision.

    On CUDA all steps are real. On a CPU only those in float32 are timed and compared bit by bit, and their peaks are
    counted on `time_batch` samples; the steps of `count_batch` are counted on fake tensors.
    """
    rows: list[Row] = []
    curve: list[tuple[float, float]] = []
    for precision in settings.precisions:
        bench = _Bench(subject, settings, precision)  # type: ignore[arg-type]  # BenchmarkSettings knows words alone
        rows += bench.rows()
        curve = curve or bench.curve()
    return Results(machine(subject.device), settings, as_table(rows), {subject.variant: curve})


class _Bench:
    """One network in one precision: its ways, and what is measured of each."""

    def __init__(self, subject: Subject, settings: BenchmarkSettings, precision: Precision) -> None:
        self._subject = subject
        self._settings = settings
        self._precision: Precision = precision
        self._on_cpu = subject.device.type == "cpu"
        self._batch = settings.count_batch
        self._real_batch = min(settings.time_batch, self._batch) if self._on_cpu else self._batch
        self._is_slow = self._on_cpu and precision != "float32"
        self._ways = plain_ways(subject.model)
        find_segments(self._ways, subject)
        self._reports = self._count(self._ways)
        started = time.perf_counter()
        self._planner = self._plan_for(subject, self._batch)
        peaks = {name: report.peak_activation_bytes for name, report in self._reports.items()}
        shares = planned_shares(self._planner, peaks)
        planned = planned_ways(subject.model, self._planner, shares)
        logger.info("%s, %s: planned in %.1f s", subject.variant, precision, time.perf_counter() - started)
        self._ways |= planned
        self._reports |= self._count(planned)

    def rows(self) -> list[Row]:
        """A row per way."""
        peaks, checks, times, differences = self._peaks(), self._checks(), self._times(), self._differences()
        rows = []
        for name, way in self._ways.items():
            row = Row(
                self._subject.family,
                self._subject.variant,
                self._subject.variants,
                self._precision,
                name,
                "x".join(map(str, self._subject.input_shape(self._batch))),
                peaks[name],
                self._promise(way),
                checks.get(name),
                times.get(name),
                differences.get(name),
            )
            logger.info("%s", _in_words(row))
            rows.append(row)
        return rows

    def curve(self) -> list[tuple[float, float]]:
        """What plans promise: activations and times, both over those of the baseline step, from the least memory on.

        `Planner.curve` is that of everything a step holds, and of the whole batch; here are activations alone, and the
        times of the batch that is timed.
        """
        baseline_bytes = self._planner.baseline.activation_bytes
        least = self._planner.least(counts_everything=False).activation_bytes / baseline_bytes
        shares = [least + number / _CURVE_PLANS * (1 - least) for number in range(1, _CURVE_PLANS)]
        more = planned_ways(self._subject.model, self._planner, {f"planned at {share:.1%}": share for share in shares})
        plans = [way.plan for way in (*self._ways.values(), *more.values()) if way.plan is not None]
        return frontier(
            (plan.predicted.activation_bytes / baseline_bytes, self._planner.time_ratio(plan, self._real_batch))
            for plan in plans
        )

    def _plan_for(self, subject: Subject, batch: int) -> Planner:
        stopwatch: Stopwatch = _BF16_ON_CPU if self._is_slow else Measured(batch=self._real_batch)
        with nothing_seen_before():  # else the times may be those of another day
            return Planner(
                subject.model,
                subject.input_shape(batch),
                precision=self._precision,
                input_dtype=subject.input_dtype,
                stopwatch=stopwatch,
            )

    def _count(self, ways: Mapping[str, Way]) -> dict[str, MemoryReport]:
        """The step on fake tensors, without an optimiser."""
        counted = _progress(ways, "steps counted")
        return {name: count(way, self._subject, self._batch, self._precision) for name, way in counted}

    def _peaks(self) -> dict[str, Peaks]:
        peaks: dict[str, Peaks] = {}
        for name, way in _progress(self._ways, "peaks counted"):
            peaks[name] = count_peaks(
                way, self._subject, self._batch, self._precision, self._reports[name], peaks.get(BASELINE)
            )
        return peaks

    def _promise(self, way: Way) -> Promise | None:
        if way.plan is None:
            return None
        # The rates by which bf16 is estimated on a CPU are made up. Elsewhere for the batch that is timed.
        time_ratio = None if self._is_slow else round(self._planner.time_ratio(way.plan, self._real_batch), 4)
        solved_bytes = self._planner.solved(way.plan).activation_bytes
        return Promise(way.plan.predicted.activation_bytes, solved_bytes, time_ratio)

    def _checks(self) -> dict[str, PeakCheck]:
        if self._is_slow:
            return self._small_check()
        checks = {}
        for name, way in _progress(self._ways, "real peaks"):
            # A plan's own promise, brought to the batch that is run.
            counted_bytes = self._reports[name].peak_activation_bytes
            promised = 1.0 if way.plan is None else way.plan.predicted.activation_bytes / counted_bytes
            checks[name] = check_peak(way, self._subject, self._real_batch, self._precision, promised)
        return checks

    def _small_check(self) -> dict[str, PeakCheck]:
        """Of one plan for small images, on a network built for them."""
        small = self._subject.resized(_SMALL_IMAGE_PX)
        planner = self._plan_for(small, _EXACT_BATCH)
        least = planner.least(counts_everything=False).activation_bytes / planner.baseline.activation_bytes
        ways = planned_ways(small.model, planner, {LEAST: least})
        return {name: check_peak(way, small, _EXACT_BATCH, self._precision) for name, way in ways.items()}

    def _times(self) -> dict[str, Times]:
        if self._is_slow:
            return {}
        settings = self._settings
        timed = time_ways(
            self._ways, self._subject, self._real_batch, self._precision, settings.rounds, settings.timing_s
        )
        return {name: compare_times(steps, self._real_batch) for name, steps in timed.items()}

    def _differences(self) -> dict[str, Differences]:
        """On a CPU in float32; on CUDA a step is not even its own equal, for atomic additions come in any order."""
        if not self._on_cpu or self._is_slow:
            return {}
        inputs = self._subject.inputs(min(_EXACT_BATCH, self._batch))
        baseline = two_steps(self._ways[BASELINE], self._subject, inputs)
        ways = _progress(self._ways, "compared bit by bit")
        return {name: two_steps(way, self._subject, inputs).compare(baseline) for name, way in ways}


def _progress(ways: Mapping[str, Way], what: str) -> Iterable[tuple[str, Way]]:
    bar: Iterable[tuple[str, Way]] = tqdm(ways.items(), desc=what, unit="way", leave=False, disable=None)
    return bar


def frontier(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of points of memory and time those that no other beats in both, from the least memory to all of it."""
    best: list[tuple[float, float]] = []
    for memory, seconds in sorted((*points, (1.0, 1.0))):
        if not best or seconds < best[-1][1]:
            best.append((round(memory, 4), round(seconds, 4)))
    return best


def _in_words(row: Row) -> str:
    words = [f"{row.variant}, {row.precision}, {row.way}: memory x {row.peaks.peak_ratio:.2f}"]
    if row.times is not None:
        words.append(f"time x {row.times.time_ratio:.2f}")
    if row.promise is not None and row.promise.predicted_time_ratio is not None:
        words.append(f"predicted x {row.promise.predicted_time_ratio:.2f}")
    return ", ".join(words)
