"""The gates that the hybrid is held to, and what is measured for each."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from aerofuse.comparison.times import EvaluationTimes, TrainingTimes
from aerofuse.metrics.statistics import Difference, McNemar

Status = Literal["pass", "fail", "not measurable here"]
Direction = Literal[">=", ">", "<"]
Unit = Literal["%", "points", "", "ms", "GB"]

_HOLDS = {">=": operator.ge, ">": operator.gt, "<": operator.lt}


@dataclass(frozen=True)
class Gate:
    """`metric direction threshold`.

    Shares are in 0..1 (shown as `%`, differences of them as `points`), times in ms, memory in bytes (shown
    as `GB`, 10^9 of them). `repeatable` gates depend on predictions alone: they give the same twice.
    """

    name: str
    metric: str
    direction: Direction
    threshold: float
    unit: Unit
    repeatable: bool = True


@dataclass(frozen=True)
class Measurement:
    """A value, or why there is none.

    `undefined` says that everything was there to measure and the model's answers still have no such value,
    for example the correlation of constant predictions: the gate then fails.
    """

    value: float | None
    note: str = ""
    undefined: bool = False


@dataclass(frozen=True)
class GateResult:
    """One gate, checked for one model."""

    model: str
    name: str
    measured: float | None
    direction: Direction
    threshold: float
    unit: Unit
    status: Status
    note: str
    repeatable: bool


ACCURACY_GATES = (
    Gate("type top-1", "type_top1", ">", 0.80, "%"),
    Gate("type top-5", "type_top5", ">", 0.95, "%"),
    Gate("airline top-1", "airline_top1", ">", 0.70, "%"),
    Gate("clarity MAE", "clarity_mae", "<", 0.15, ""),
    Gate("clarity PLCC", "clarity_plcc", ">", 0.7, ""),
    Gate("block MAE", "block_mae", "<", 0.15, ""),
    Gate("block PLCC", "block_plcc", ">", 0.7, ""),
)
HYBRID_GATES = (
    Gate("type top-1 over multi-task", "type_top1_gain", ">=", 0.01, "points"),
    *ACCURACY_GATES,
    Gate("latency, batch 1", "latency_ms", "<", 100, "ms", repeatable=False),
    Gate("peak training memory, batch 16, base", "peak_memory_bytes", "<", 20e9, "GB", repeatable=False),
)


def check_gates(model: str, gates: tuple[Gate, ...], measurements: Mapping[str, Measurement]) -> list[GateResult]:
    """Return every gate with what was measured for `model`; without a measurement it is not measurable here."""
    return [_check(model, gate, measurements.get(gate.metric, Measurement(None))) for gate in gates]


def _check(model: str, gate: Gate, measurement: Measurement) -> GateResult:
    # Rounded as in the metrics files: in float32, 0.8 is 0.80000001, which is not more than 0.8.
    measured = None if measurement.value is None else round(measurement.value, 6)
    status: Status
    if measured is not None:
        status = "pass" if _HOLDS[gate.direction](measured, gate.threshold) else "fail"
    else:
        status = "fail" if measurement.undefined else "not measurable here"
    note, asked = measurement.note, (gate.direction, gate.threshold, gate.unit)
    return GateResult(model, gate.name, measured, *asked, status, note, gate.repeatable)


def measure_accuracy(metrics: Mapping[str, float], predictions: pd.DataFrame) -> dict[str, Measurement]:
    """Return the metrics of the accuracy gates.

    A correlation that is missing although the labels vary means that the predictions are constant: that is a
    failure of the model. Everything else that is missing has no labels to be measured with.
    """
    measurements = {}
    for gate in ACCURACY_GATES:
        task = gate.metric.partition("_")[0]
        labelled = int(metrics.get(f"{task}_labelled", 0))
        if gate.metric in metrics:
            measurements[gate.metric] = Measurement(metrics[gate.metric], f"{labelled} test images")
        elif gate.metric.endswith("_plcc") and task in predictions and predictions[task].nunique() > 1:
            note = f"undefined: the same {task} is predicted for all {labelled} test images"
            measurements[gate.metric] = Measurement(None, note, undefined=True)
        else:
            note = (
                f"the {task} labels of the test images are all the same"
                if labelled
                else f"no test image has a label of {task}"
            )
            measurements[gate.metric] = Measurement(None, note)
    return measurements


def measure_gain(gain: Difference | None, mcnemar: McNemar | None, confidence_level: float) -> Measurement:
    """Return the hybrid's type top-1 minus the multi-task model's, its interval and McNemar's test as a note."""
    if gain is None or mcnemar is None:
        return Measurement(None, "no test image has a label of type")
    note = (
        f"{confidence_level:.0%} interval {100 * gain.low:+.2f} to {100 * gain.high:+.2f} points; "
        f"right in one model only: {mcnemar.only_a} hybrid, {mcnemar.only_b} multi-task "
        f"(McNemar p = {mcnemar.p_value:.2g})"
    )
    return Measurement(gain.estimate, note)


def measure_latency(times: EvaluationTimes) -> Measurement:
    """Return the median latency, with the device and the size of the image that it is true for."""
    note = (
        f"{times.device}, {times.image_size} px; 95th percentile {times.latency_p95_ms:.1f} ms; other programs took "
        f"{times.busy_elsewhere:.0%} of the processors' time"
    )
    return Measurement(times.latency_ms, note)


def measure_memory(last_phase: TrainingTimes, recipe: str, batch_size: int) -> Measurement:
    """Return the allocator's peak in the hybrid's last phase, which trains everything and so needs most.

    The gate is about one setting: a GPU, the recipe `base`, batches of 16.
    """
    if recipe != "base" or batch_size != 16:
        return Measurement(None, f"recipe {recipe}, batch {batch_size}; the gate is for recipe base, batch 16")
    if last_phase.peak_memory_bytes is None:
        return Measurement(None, f"trained on {last_phase.device}, not on a GPU")
    return Measurement(last_phase.peak_memory_bytes, last_phase.device)
