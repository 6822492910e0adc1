from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from torch.overrides import get_overridable_functions

from aerofuse.checkpointing.operations import (
    BatchNormCall,
    CallNames,
    _replay_is_exact,
    replay_batch_norm,
    written_over,
)


def call_on(images: torch.Tensor, *, training: bool = True) -> BatchNormCall:
    channels = images.shape[1]
    generator = torch.Generator().manual_seed(1)
    weight, bias = (torch.randn(channels, generator=generator, dtype=images.dtype) for _ in range(2))
    mean, variance = torch.zeros(channels, dtype=images.dtype), torch.ones(channels, dtype=images.dtype)
    return BatchNormCall(images, mean, variance, weight, bias, training)


@pytest.mark.parametrize("shape", [(4, 8, 16, 16), (2, 3, 7, 5), (16, 5), (2, 4, 3, 6, 6)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_batch_normalisation_again_gives_the_same_bits(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0)).mul(3).add(1).to(dtype)
    call = call_on(images)
    expected = functional.batch_norm(images, None, None, call.weight, call.bias, True, 0.1, call.eps)
    if call.can_be_replayed():
        output, mean, deviation = call.run()
        assert torch.equal(output, expected)
        assert call.weight is not None
        assert call.bias is not None
        assert torch.equal(replay_batch_norm(images, mean, deviation, call.weight, call.bias), expected)
    else:
        # A processor that rounds otherwise, or another type: computed in full.
        assert dtype != torch.float32 or not _replay_is_exact()
    assert torch.equal(functional.batch_norm(*call.without_running_statistics()), expected)


def test_what_is_not_replayed() -> None:
    assert not call_on(torch.ones(4, 3), training=False).can_be_replayed()
    assert not call_on(torch.ones(1, 3)).can_be_replayed()
    assert not call_on(torch.ones(4, 3, dtype=torch.float64)).can_be_replayed()


def test_calls_are_named_by_function_and_order() -> None:
    names = CallNames()
    called = ["linear", "gelu", "linear", "add_"]
    assert [names.next(function) for function in called] == ["linear.0", "gelu.0", "linear.1", "add_.0"]


def test_every_function_of_torch_can_be_asked_what_it_writes_over() -> None:
    functions = {function for group in get_overridable_functions().values() for function in group}
    assert {torch.Tensor.pow, torch.Tensor.pow_, functional.relu} <= functions
    x = torch.ones(2)
    found = {function.__name__ for function in functions if written_over(function, (x,), {})}
    assert "pow_" in found
    assert found.isdisjoint({"pow", "relu", "add"})
