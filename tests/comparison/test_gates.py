from __future__ import annotations

import dataclasses

import pandas as pd
import pytest

from aerofuse.comparison.gates import (
    ACCURACY_GATES,
    HYBRID_GATES,
    Gate,
    Measurement,
    check_gates,
    measure_accuracy,
    measure_gain,
    measure_latency,
    measure_memory,
)
from aerofuse.comparison.times import EvaluationTimes, TrainingTimes
from aerofuse.metrics.statistics import Difference, McNemar

TRAINED = TrainingTimes(10.0, 0.0, 2, 2, 100, 10.0, "NVIDIA H200", 0.0, 16_000_000_000, 0.1, 0)


@pytest.mark.parametrize(
    ("gate", "value", "status"),
    [
        (("type_top1", ">", 0.8), 0.8001, "pass"),
        (("type_top1", ">", 0.8), 0.8, "fail"),
        (("type_top1", ">", 0.8), 0.800000011920929, "fail"),  # 0.8 in float32
        (("gain", ">=", 0.01), 0.01, "pass"),
        (("gain", ">=", 0.01), 0.0099, "fail"),
        (("mae", "<", 0.15), 0.149, "pass"),
        (("mae", "<", 0.15), 0.15, "fail"),
    ],
)
def test_a_gate_at_its_threshold(gate: tuple[str, str, float], value: float, status: str) -> None:
    metric, direction, threshold = gate
    checked = check_gates("m", (Gate("g", metric, direction, threshold, ""),), {metric: Measurement(value)})  # type: ignore[arg-type]
    assert [result.status for result in checked] == [status]


def test_nothing_measured_is_neither_pass_nor_fail() -> None:
    results = check_gates("hybrid", HYBRID_GATES, {})
    assert {result.status for result in results} == {"not measurable here"}
    assert [result.name for result in results] == [gate.name for gate in HYBRID_GATES]


def test_the_gates_are_those_of_the_specification() -> None:
    assert {(gate.metric, gate.direction, gate.threshold) for gate in HYBRID_GATES} == {
        ("type_top1_gain", ">=", 0.01),
        ("type_top1", ">", 0.80),
        ("type_top5", ">", 0.95),
        ("airline_top1", ">", 0.70),
        ("clarity_mae", "<", 0.15),
        ("clarity_plcc", ">", 0.7),
        ("block_mae", "<", 0.15),
        ("block_plcc", ">", 0.7),
        ("latency_ms", "<", 100),
        ("peak_memory_bytes", "<", 20e9),
    }
    assert {gate.metric for gate in HYBRID_GATES if not gate.repeatable} == {"latency_ms", "peak_memory_bytes"}


def test_accuracy_without_labels_is_not_measurable() -> None:
    metrics = {"type_labelled": 3, "type_top1": 1.0, "type_top5": 1.0, "airline_labelled": 0, "clarity_labelled": 0}
    predictions = pd.DataFrame({"clarity": [None] * 3, "block": [None] * 3}, dtype="float64")
    results = {r.name: r for r in check_gates("hybrid", ACCURACY_GATES, measure_accuracy(metrics, predictions))}
    assert results["type top-1"].status == "pass"
    for name in ("airline top-1", "clarity MAE", "clarity PLCC", "block PLCC"):
        assert results[name].status == "not measurable here"
        assert "no test image has a label" in results[name].note


def test_a_correlation_that_constant_predictions_do_not_have_is_a_failure() -> None:
    metrics = {"clarity_labelled": 3, "clarity_mae": 0.1, "block_labelled": 3, "block_mae": 0.1}
    predictions = pd.DataFrame({"clarity": [0.1, 0.2, 0.3], "block": [0.4, 0.4, 0.4]})
    results = {r.name: r for r in check_gates("hybrid", ACCURACY_GATES, measure_accuracy(metrics, predictions))}
    assert results["clarity PLCC"].status == "fail"
    assert results["clarity PLCC"].measured is None
    assert "the same clarity is predicted" in results["clarity PLCC"].note
    assert results["block PLCC"].status == "not measurable here"  # nothing to correlate with


def test_the_gain_comes_with_its_interval() -> None:
    measurements = measure_gain(Difference(0.012, -0.001, 0.025), McNemar(30, 18, 0.11), 0.95)
    assert measurements.value == 0.012
    assert "95% interval -0.10 to +2.50 points" in measurements.note
    assert "p = 0.11" in measurements.note
    assert measure_gain(None, None, 0.95).value is None


def test_latency_names_its_device() -> None:
    measurements = measure_latency(EvaluationTimes(12.0, 15.0, "Some CPU", 0.04, 1000, 96))
    assert measurements.value == 12.0
    assert measurements.note.startswith("Some CPU, 96 px")
    assert measurements.note.endswith("other programs took 4% of the processors' time")


def test_memory_is_measurable_in_one_setting_only() -> None:
    assert measure_memory(TRAINED, "base", 16).value == 16_000_000_000
    assert measure_memory(TRAINED, "base", 8).value is None
    assert measure_memory(TRAINED, "small", 16).value is None
    on_cpu = measure_memory(dataclasses.replace(TRAINED, device="Some CPU", peak_memory_bytes=None), "base", 16)
    assert on_cpu.value is None
    assert "Some CPU" in on_cpu.note
