from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from aerofuse.checkpointing.chain import Unit
from aerofuse.checkpointing.recompute import run_recomputed
from aerofuse.checkpointing.selective import run_selective
from aerofuse.planning import clocks
from aerofuse.planning.clocks import Measured, Transfer, UnitSeconds
from aerofuse.planning.unit_bytes import TensorLike


def time_alone(stopwatch: Measured, run: Callable[[Tensor], Tensor], samples: int, count: int = 1) -> UnitSeconds:
    inputs = TensorLike.of(torch.rand(samples, 5, requires_grad=True))
    return stopwatch.time_unit(Unit("unit", run, ()), inputs, nullcontext, count=count)


@pytest.mark.parametrize(("samples", "scale"), [(2, 1), (4, 1), (8, 2)])
def test_times_of_a_unit(monkeypatch: pytest.MonkeyPatch, samples: int, scale: float) -> None:
    now = 0.0

    def run(inputs: Tensor) -> Tensor:
        nonlocal now
        now += 3
        output = inputs.sigmoid().tanh()  # the last that autograd saves
        now += 2
        return output.neg()

    monkeypatch.setattr(clocks, "_now", lambda device: now)
    seconds = time_alone(Measured(rounds=2, batch=4), run, samples)
    assert seconds.forward == 5 * scale
    assert seconds.backward == 0
    assert seconds.rerun == 3 * scale
    assert seconds.whole_rerun == 5 * scale
    assert seconds.rerun_fixed == seconds.selective == 0
    assert seconds.replays == {"sigmoid.0": 0, "tanh.0": 0}


@pytest.mark.parametrize("disturbed_by", [-3, 100])
@pytest.mark.parametrize("disturbed", [{4}, {5}, {6}, {7}, {4, 5, 6, 7}])
def test_one_round_in_three_that_is_disturbed_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, disturbed: set[int], disturbed_by: float
) -> None:
    now = 0.0
    runs = 0

    def run(inputs: Tensor) -> Tensor:
        nonlocal now, runs
        now += 5
        if runs in disturbed:  # of a step as it is, two of a second run and a selective one, after as many to warm up
            now += disturbed_by
        runs += 1
        return inputs.sigmoid()

    monkeypatch.setattr(clocks, "_now", lambda device: now)
    seconds = time_alone(Measured(rounds=3, seconds=0), run, 2)
    assert runs == 4 * 4
    assert (seconds.forward, seconds.rerun) == (5, 5)
    assert seconds.rerun_fixed == seconds.selective == 0


@pytest.mark.parametrize(("count", "seconds", "rounds"), [(1, 0, 3), (1, 60, 6), (4, 0, 6), (12, 0, 11), (4, 60, 12)])
def test_short_rounds_and_those_of_frequent_units_are_more(count: int, seconds: float, rounds: int) -> None:
    runs = 0

    def run(inputs: Tensor) -> Tensor:
        nonlocal runs
        runs += 1
        return inputs.sigmoid()

    time_alone(Measured(rounds=3, seconds=seconds), run, 2, count)
    assert runs == 4 * (1 + rounds)


@pytest.mark.parametrize(("samples", "growing"), [(8, 16), (4, 8), (2, 0)])
def test_what_checkpointing_takes_besides_counts(monkeypatch: pytest.MonkeyPatch, samples: int, growing: float) -> None:
    now = 0.0

    def slowly(seconds: float, policy: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run(run: Callable[[Tensor], Tensor], *args: Any, **keywords: Any) -> Tensor:
            nonlocal now
            (inputs,) = (argument for argument in args if isinstance(argument, Tensor))
            now += seconds + 2 * len(inputs)
            return policy(run, *args, **keywords)

        return run

    def sigmoid(inputs: Tensor) -> Tensor:
        nonlocal now
        now += 1
        return inputs.sigmoid()

    monkeypatch.setattr(clocks, "_now", lambda device: now)
    monkeypatch.setattr(clocks, "run_selective", slowly(7, run_selective))
    monkeypatch.setattr(clocks, "run_recomputed", slowly(11, run_recomputed))
    seconds = time_alone(Measured(rounds=1, batch=4), sigmoid, samples)
    # From two samples alone nobody can tell what grows.
    fixed = 0 if growing else 2 * 2
    assert (seconds.selective_fixed, seconds.selective) == (7 + fixed, 7 + fixed + growing)
    assert seconds.rerun_fixed == 11 + fixed
    assert seconds.rerun == seconds.whole_rerun == 11 + fixed + growing + samples / min(samples, 4)


def test_the_copy_that_a_call_in_place_makes_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    clone = Tensor.clone

    def slow_clone(tensor: Tensor) -> Tensor:
        nonlocal now
        now += 3
        return clone(tensor)

    monkeypatch.setattr(clocks, "_now", lambda device: now)

    def run(inputs: Tensor) -> Tensor:
        nonlocal now
        now += 1
        double = inputs.mul(2)
        other = double.sigmoid()
        return double.tanh_() + other  # the sigmoid is made again from what tanh has written over

    monkeypatch.setattr(Tensor, "clone", slow_clone)
    seconds = time_alone(Measured(rounds=1), run, 2)
    assert seconds.replays == {"mul.0": 0, "sigmoid.0": 0, "tanh_.0": 3}
    assert seconds.selective == 0


def test_a_unit_that_checks_values_is_timed_with_made_up_ones() -> None:
    ids = TensorLike.of(torch.ones(2, 5, dtype=torch.long))

    def run(inputs: Tensor) -> Tensor:
        torch._assert_async((ids.make() > 0).all())
        return inputs.sigmoid()

    assert time_alone(Measured(rounds=1), run, 2).forward > 0
    with pytest.raises(RuntimeError):
        run(torch.ones(2, 5))


def test_a_unit_whose_other_inputs_have_no_first_samples_is_timed_with_all() -> None:
    patches = torch.ones(8, 5)  # of TNT's pixels there are more than of its patches

    def run(inputs: Tensor) -> Tensor:
        return (inputs + patches).sigmoid()

    assert time_alone(Measured(rounds=1), run, 8).forward > 0
    with pytest.raises(RuntimeError):
        time_alone(Measured(rounds=1), run, 7)


def test_the_rate_of_a_transfer_is_the_median_after_a_first_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocks, "_TRANSFERRED_BYTES", 8)
    rounds = [(0, 100, 200), *((0, 8, 24) for _ in range(4)), (0, 90, 95)]
    now = iter([moment for one in rounds for moment in one])
    monkeypatch.setattr(clocks, "_now", lambda device: next(now))
    assert Measured().time_transfer(torch.device("cpu")) == Transfer(1.0, 2.0, overlaps=False)
