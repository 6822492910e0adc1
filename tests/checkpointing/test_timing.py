from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from aerofuse.checkpointing import timing
from aerofuse.checkpointing.counting import TensorLike
from aerofuse.checkpointing.recompute import run_recomputed
from aerofuse.checkpointing.thin import run_thinned
from aerofuse.checkpointing.timing import Measured


@pytest.mark.parametrize(("samples", "scale"), [(2, 1), (4, 1), (8, 2)])
def test_times_of_a_unit(monkeypatch: pytest.MonkeyPatch, samples: int, scale: float) -> None:
    now = 0.0

    def run(inputs: Tensor) -> Tensor:
        nonlocal now
        now += 3
        output = inputs.sigmoid().tanh()  # the last that autograd saves
        now += 2
        return output.neg()

    monkeypatch.setattr(timing, "_now", lambda device: now)
    inputs = TensorLike.of(torch.rand(samples, 5, requires_grad=True))
    seconds = Measured(rounds=2, batch=4).time_unit(run, [], inputs, nullcontext)
    assert seconds.forward == 5 * scale
    assert seconds.backward == 0
    assert seconds.rerun == 3 * scale
    assert seconds.whole_rerun == 5 * scale
    assert seconds.watching == 0
    assert seconds.replays == {"sigmoid.0": 0, "tanh.0": 0}


def test_what_a_second_run_takes_besides_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def slowly(seconds: float, way: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run(*args: Any, **keywords: Any) -> Tensor:
            nonlocal now
            now += seconds
            return way(*args, **keywords)

        return run

    monkeypatch.setattr(timing, "_now", lambda device: now)
    monkeypatch.setattr(timing, "run_thinned", slowly(7, run_thinned))
    monkeypatch.setattr(timing, "run_recomputed", slowly(11, run_recomputed))
    # It does not grow with the samples.
    inputs = TensorLike.of(torch.rand(8, 5, requires_grad=True))
    seconds = Measured(rounds=1, batch=4).time_unit(torch.sigmoid, [], inputs, nullcontext)
    assert seconds.watching == 7
    assert seconds.rerun == seconds.whole_rerun == 11
