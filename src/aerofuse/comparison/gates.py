"""The gates that a model has to pass, as data, and the check."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

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
    """Every gate with what was measured for `model`; without a measurement it is not measurable here."""
    return [_check(model, gate, measurements.get(gate.metric, Measurement(None))) for gate in gates]


def _check(model: str, gate: Gate, measurement: Measurement) -> GateResult:
    # Rounded as in the metrics files: in float32, 0.8 is 0.80000001, which is not more than 0.8.
    measured = None if measurement.value is None else round(measurement.value, 6)
    status: Status
    if measured is not None:
        status = "pass" if _HOLDS[gate.direction](measured, gate.threshold) else "fail"
    else:
        status = "fail" if measurement.undefined else "not measurable here"
    return GateResult(
        model=model,
        name=gate.name,
        measured=measured,
        direction=gate.direction,
        threshold=gate.threshold,
        unit=gate.unit,
        status=status,
        note=measurement.note,
        repeatable=gate.repeatable,
    )
