from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from aerofuse.comparison.comparison import Settings, compare_models
from aerofuse.comparison.times import EvaluationTimes, TrainingTimes
from tests.metrics import samples

SETTINGS = Settings(confidence_level=0.95, resamples=500, recipe="quick", batch_size=32)


def test_rows_and_differences() -> None:
    comparison = compare_models(samples.results(), SETTINGS)
    assert comparison.test_images == samples.IMAGES
    assert [row.model for row in comparison.rows] == ["single_task", "multi_task", "hybrid"]
    assert set(comparison.rows[0].intervals) == {"type_top1"}
    gain = comparison.difference("hybrid", "multi_task", "type_top1")
    assert gain is not None
    assert gain.mcnemar is not None
    assert gain.difference.estimate == pytest.approx(6 / 120)
    assert (gain.mcnemar.only_a, gain.mcnemar.only_b) == (6, 0)
    assert gain.mcnemar.p_value == pytest.approx(2 / 2**6)
    airline = comparison.difference("hybrid", "multi_task", "airline_top1")
    assert airline is not None
    assert airline.images == 108
    clarity = comparison.difference("hybrid", "multi_task", "clarity_mae")
    assert clarity is not None
    assert clarity.difference.estimate == pytest.approx(-0.05, abs=1e-6)
    assert clarity.mcnemar is None


def test_pairs_share_only_the_tasks_that_both_have() -> None:
    comparison = compare_models(samples.results(), SETTINGS)
    with_single = [d.metric for d in comparison.differences if d.model_b == "single_task"]
    assert with_single == ["type_top1", "type_top1"]


def test_the_hybrid_adds_up_its_phases() -> None:
    comparison = compare_models(samples.results(), SETTINGS)
    training = comparison.rows[-1].training
    assert (training.seconds, training.epochs, training.images) == (180, 6, 18_000)
    assert training.images_per_second == pytest.approx(18_000 / (20 + 40 + 60))
    assert comparison.phase_speed_ratio == 3


def test_failed_gates_are_the_hybrids_own() -> None:
    good = compare_models(samples.results(), SETTINGS)
    assert good.failed_gates == []
    bad = compare_models(samples.results(hybrid_wrong=12), SETTINGS)
    assert [gate.name for gate in bad.failed_gates] == ["type top-1 over multi-task"]
    found = samples.results()
    found["multi_task"] = dataclasses.replace(
        found["multi_task"], metrics={**found["multi_task"].metrics, "airline_top1": 0.5}
    )
    weak_baseline = compare_models(found, SETTINGS)
    assert weak_baseline.failed_gates == []
    assert "fail" in {gate.status for gate in weak_baseline.gates if gate.model == "multi_task"}


def test_flat_metrics_do_not_depend_on_times() -> None:
    fast, slow = samples.results(), samples.results()
    slow["hybrid"] = dataclasses.replace(
        slow["hybrid"],
        times=EvaluationTimes(500.0, 600.0, "Slow CPU", 0.0, 1_500_000, 96),
        training=tuple(TrainingTimes(999.0, 0.0, 2, 2, 6000, 6.0, "Slow CPU", 0.0, None, 0.1, 0) for _ in range(3)),
    )
    flat = compare_models(fast, SETTINGS).flat_metrics()
    slow_comparison = compare_models(slow, SETTINGS)
    assert slow_comparison.flat_metrics() == flat
    assert [gate.name for gate in slow_comparison.failed_gates] == ["latency, batch 1"]
    assert list(flat["compare"]) == [
        "gain_type_top1",
        "gain_low",
        "gain_high",
        "mcnemar_p",
        "gates_passed",
        "gates_failed",
    ]
    assert flat["compare"]["gates_passed"] == 8


def test_everything_goes_into_json() -> None:
    content = json.loads(json.dumps(compare_models(samples.results(), SETTINGS).to_json(), allow_nan=False))
    assert content["rows"][2]["metrics"]["type_top1"] == pytest.approx(114 / 120)
    assert len(content["gates"]) == 17


def test_predictions_of_other_images_are_refused() -> None:
    found = samples.results()
    found["hybrid"] = dataclasses.replace(found["hybrid"], predictions=found["hybrid"].predictions[::-1])
    with pytest.raises(ValueError, match="multi_task and hybrid were evaluated on different test images"):
        compare_models(found, SETTINGS)


def test_a_missing_model_is_named() -> None:
    found = samples.results()
    del found["multi_task"]
    with pytest.raises(ValueError, match="results of single_task, hybrid; there must be those of single_task, multi"):
        compare_models(found, SETTINGS)


def test_times_files_are_read_strictly(tmp_path: Path) -> None:
    path = tmp_path / "evaluate_hybrid.json"
    with pytest.raises(FileNotFoundError, match="dvc repro evaluate@hybrid"):
        EvaluationTimes.read(path)
    times = EvaluationTimes(1.0, 2.0, "CPU", 0.0, 3, 96)
    path.write_text(json.dumps(dataclasses.asdict(times)))
    assert EvaluationTimes.read(path) == times
    with pytest.raises(ValueError, match="must hold exactly seconds, seconds_seeing_photos, epochs"):
        TrainingTimes.read(path)
