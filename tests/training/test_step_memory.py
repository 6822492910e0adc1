from __future__ import annotations

import pytest
import torch

from aerofuse.memory.counter import LiveBytes
from aerofuse.training.params import TrainingParams
from aerofuse.training.step_memory import StepMemory, unless_out_of_memory
from tests.training.test_fitting import SIZE_PX, small_model, tiny_model, training


def _step(params: TrainingParams, accumulation_steps: int = 1) -> StepMemory:
    return StepMemory(tiny_model(), SIZE_PX, params, accumulation_steps)


def test_both_half_precisions_are_counted_alike() -> None:
    def peak(precision: str) -> int:
        params = training().model_copy(update={"mixed_precision": precision})
        return StepMemory(small_model(), SIZE_PX, params, 1).count(64)

    assert peak("no") != peak("bf16") == peak("fp16")


def test_gradients_wait_where_they_are_accumulated() -> None:
    once, twice = _step(training()), _step(training(), accumulation_steps=2)
    assert once.count(64) < twice.count(64) <= once.count(64) + once.gradient_bytes


def test_a_pass_without_gradients() -> None:
    model = small_model()
    step = StepMemory(model, SIZE_PX, training(), 1)
    images = torch.zeros(5, 3, SIZE_PX, SIZE_PX, dtype=torch.uint8)
    with torch.no_grad(), LiveBytes(model.eval(), None, [images]) as live:
        model(images)
    model.train()
    assert step.count_evaluation(5) == live.report().peak_bytes + 2 * step.gradient_bytes
    assert model.training


def test_what_is_counted_without_checkpointing_leaves_it_on() -> None:
    model = small_model().enable_gradient_checkpointing()
    step = StepMemory(model, SIZE_PX, training(), 1)
    assert step.checkpoints
    assert step.count_baseline(8) > step.count(8)
    assert step.checkpoints


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
)
def test_a_lack_of_memory_is_told_from_other_errors(error: Exception) -> None:
    def fail(what: Exception) -> int:
        raise what

    assert unless_out_of_memory(lambda: fail(error)) is None
    assert unless_out_of_memory(lambda: 3) == 3
    with pytest.raises(RuntimeError, match="shapes"):
        unless_out_of_memory(lambda: fail(RuntimeError("shapes cannot be multiplied")))
