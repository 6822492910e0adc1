from __future__ import annotations

import itertools
import random
import statistics
import time

import pytest
import torch
from torch import Tensor, nn

from tests.tools.benchmarks.samples import tiny_subject
from tools.benchmarks import measuring
from tools.benchmarks.measuring import (
    TimedStep,
    check_peak,
    compare_times,
    count,
    count_peaks,
    find_segments,
    time_ways,
    two_steps,
)
from tools.benchmarks.rows import BASELINE, RECOMPUTE_ALL, SEGMENTS, SWITCH, Differences
from tools.benchmarks.subjects import Subject, backbone_subject
from tools.benchmarks.ways import Way, plain_ways

pytestmark = pytest.mark.slow


def test_the_largest_batch_holds_no_more() -> None:
    subject = tiny_subject()
    ways = plain_ways(subject.model)
    reports = {name: count(way, subject, 16, "float32") for name, way in ways.items()}
    baseline = count_peaks(ways[BASELINE], subject, 16, "float32", reports[BASELINE], None)
    assert (baseline.peak_ratio, baseline.largest_batch) == (1, 16)
    by_kind = ("parameters", "gradients", "optimizer_state", "inputs", "activations", "temporaries")
    assert sum(getattr(baseline, f"{kind}_bytes") for kind in by_kind) == baseline.total_peak_bytes
    for name in (SWITCH, RECOMPUTE_ALL):
        peaks = count_peaks(ways[name], subject, 16, "float32", reports[name], baseline)
        assert peaks.largest_batch > 16
        fits, more = (
            count(ways[name], subject, batch, "float32", optimizer="adamw").peak_bytes
            for batch in (peaks.largest_batch, peaks.largest_batch + 2)
        )
        assert fits <= 1.01 * baseline.total_peak_bytes < 1.02 * more


@pytest.mark.parametrize("name", [BASELINE, SEGMENTS])
def test_a_count_on_fake_tensors_foretells_the_real_peak(name: str) -> None:
    subject = tiny_subject()
    ways = plain_ways(subject.model)
    find_segments(ways, subject)
    check = check_peak(ways[name], subject, 2, "float32")
    assert check.real_input_shape == "2x3x64x64"
    assert check.real_peak_bytes == pytest.approx(check.real_predicted_bytes, rel=0.005)
    doubled = check_peak(ways[name], subject, 2, "float32", scale=2)
    assert doubled.peak_error == pytest.approx(1, abs=0.02)


def test_every_way_is_timed_once_a_round_between_two_steps_without_checkpointing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Each step takes a second longer than the one before.
    steps = itertools.count(1)

    def seconds_of_step(model: nn.Module, inputs: Tensor, precision: str) -> float:
        return float(next(steps))

    monkeypatch.setattr(measuring, "_seconds_of_step", seconds_of_step)
    ways = _two_ways(tiny_subject(32))
    timed = time_ways(ways, tiny_subject(32), 1, "float32", rounds=2)
    assert {name: [step.seconds for step in each] for name, each in timed.items()} == {
        BASELINE: [6, 10],
        SEGMENTS: [8, 12],
    }
    assert all(step.baseline_seconds == step.seconds for each in timed.values() for step in each)


def test_steps_that_are_timed_leave_no_gradients() -> None:
    subject = tiny_subject(32)
    timed = time_ways(_two_ways(subject), subject, 1, "float32", rounds=1)
    assert all(step.seconds > 0 for each in timed.values() for step in each)
    assert all(parameter.grad is None for parameter in subject.model.parameters())


def test_what_a_network_does_once_after_a_switch_is_not_timed() -> None:
    subject = tiny_subject(32)
    steps_after_a_switch = 0

    def switch(_batch: int) -> nn.Module:
        nonlocal steps_after_a_switch
        steps_after_a_switch = 0
        return subject.model

    def wait_in_the_first_step(*_: object) -> None:
        nonlocal steps_after_a_switch
        steps_after_a_switch += 1
        time.sleep(0.5 if steps_after_a_switch == 1 else 0)

    subject.model.register_forward_pre_hook(wait_in_the_first_step)
    timed = time_ways({BASELINE: Way(switch)}, subject, 2, "float32", rounds=1)
    assert timed[BASELINE][0].seconds < 0.5


def test_short_steps_are_timed_in_more_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "_seconds_of_step", lambda model, inputs, precision: 0.1)
    subject = tiny_subject(32)
    timed = time_ways(_two_ways(subject), subject, 1, "float32", rounds=1, timing_s=0.5)
    assert sum(step.seconds + step.baseline_seconds for each in timed.values() for step in each) >= 0.5
    assert len(timed[BASELINE]) == len(timed[SEGMENTS]) == 2


def _two_ways(subject: Subject) -> dict[str, Way]:
    return {name: way for name, way in plain_ways(subject.model).items() if name in (BASELINE, SEGMENTS)}


def test_times_are_compared_step_by_step() -> None:
    # The second round was slow for both.
    steps = [TimedStep(1.2, 1.0), TimedStep(12.0, 10.0), TimedStep(1.3, 1.0)]
    times = compare_times(steps, batch=2)
    assert (times.time_ratio, times.seconds, times.time_batch) == (1.2, 1.3, 2)
    assert times.time_ratio_low == 1.2 <= times.time_ratio_high <= 1.3
    once = compare_times([TimedStep(3.0, 2.0)], batch=1)
    assert once.time_ratio == once.time_ratio_low == once.time_ratio_high == 1.5
    assert once.time_ratio_error is None


def test_the_standard_error_is_how_far_medians_of_other_rounds_are_apart() -> None:
    rng = random.Random(0)
    found = [compare_times([TimedStep(rng.gauss(1.3, 0.1), 1.0) for _ in range(40)], batch=2) for _ in range(300)]
    apart = statistics.stdev(times.time_ratio for times in found)
    assert statistics.mean(times.time_ratio_error or 0 for times in found) == pytest.approx(apart, rel=0.1)


def test_timms_switch_changes_the_statistics_of_batch_normalisation_and_ours_nothing() -> None:
    subject = backbone_subject("resnet18", 64)
    ways, inputs = plain_ways(subject.model), subject.inputs(2)
    state = {name: tensor.clone() for name, tensor in subject.model.state_dict().items()}
    random_state = torch.get_rng_state()
    baseline = two_steps(ways[BASELINE], subject, inputs)
    assert len(baseline.losses) == 2
    for name in (BASELINE, SEGMENTS, RECOMPUTE_ALL):
        assert two_steps(ways[name], subject, inputs).compare(baseline) == Differences(0, 60, 0, 60, 0, 0)
    differences = two_steps(ways[SWITCH], subject, inputs).compare(baseline)
    assert differences.gradients_that_differ == differences.losses_that_differ == 0
    assert differences.buffers_that_differ > 40
    # Nothing is left behind.
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in subject.model.state_dict().items())
    assert all(parameter.grad is None for parameter in subject.model.parameters())
