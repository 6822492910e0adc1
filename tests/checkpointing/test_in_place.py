"""Activations that write their gradient over what they have read: the same bits, less memory, nobody's loss."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from aerofuse.checkpointing import in_place
from aerofuse.checkpointing.recompute import run_recomputed
from aerofuse.checkpointing.selective import run_selective
from aerofuse.planning.unit_bytes import TensorLike, count_unit

SIZE = (5, 37, 129)  # no multiples of what a processor works on at once

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": partial(functional.softmax, dim=-1),
    "softmax of a method": lambda x: x.softmax(1),
    "gelu": functional.gelu,
    "gelu by tanh": partial(functional.gelu, approximate="tanh"),
    "silu": functional.silu,
    "relu": functional.relu,
}
Run = Callable[[Tensor], Tensor]


def selective(run: Run, x: Tensor) -> Tensor:
    return run_selective(run, x, save=())


def in_a_range(run: Run, x: Tensor) -> Tensor:
    return run_recomputed(run, partial(selective, run), (), x)


def gradient(run: Run) -> Tensor:
    torch.manual_seed(0)
    x = torch.randn(SIZE, requires_grad=True)
    (found,) = torch.autograd.grad(run(x).square().sum(), x)
    return found


@pytest.fixture
def overwritten(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    answers: list[bool] = []
    ask = in_place._may_be_overwritten

    def asked(saved: Tensor, gradient: Tensor) -> bool:
        answers.append(ask(saved, gradient))
        return answers[-1]

    monkeypatch.setattr(in_place, "_may_be_overwritten", asked)
    return answers


@pytest.mark.parametrize("run_checkpointed", [selective, in_a_range])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_bits_are_those_of_autograd(
    name: str, run_checkpointed: Callable[..., Tensor], overwritten: list[bool]
) -> None:
    def run(x: Tensor) -> Tensor:
        return ACTIVATIONS[name](x * 3).exp()

    assert torch.equal(gradient(partial(run_checkpointed, run)), gradient(run))
    assert overwritten == [True]


@pytest.mark.parametrize("run_checkpointed", [selective, in_a_range])
def test_what_somebody_else_still_reads_is_left_alone(
    run_checkpointed: Callable[..., Tensor], overwritten: list[bool]
) -> None:
    def run(x: Tensor) -> Tensor:
        hidden = x * 3
        first = hidden * hidden.exp()  # reads it in its backward pass, after the activation's
        return (first + functional.gelu(hidden)).exp()

    assert torch.equal(gradient(partial(run_checkpointed, run)), gradient(run))
    assert overwritten == [False]


def test_what_is_saved_is_left_alone(overwritten: list[bool]) -> None:
    def run(x: Tensor) -> Tensor:
        return functional.gelu(x * 3).exp()

    x = torch.randn(SIZE, requires_grad=True)
    output = run_selective(run, x, save=("mul.0",)).sum()
    (first,) = torch.autograd.grad(output, x, retain_graph=True)
    (second,) = torch.autograd.grad(output, x)
    assert torch.equal(first, second)
    assert overwritten == [False, False]


def test_a_second_backward_pass_finds_all_as_it_was(overwritten: list[bool]) -> None:
    def run(x: Tensor) -> Tensor:
        return functional.gelu(x * 3).exp()

    x = torch.randn(SIZE, requires_grad=True)
    output = selective(run, x).sum()
    (first,) = torch.autograd.grad(output, x, retain_graph=True)
    (second,) = torch.autograd.grad(output, x)
    assert torch.equal(first, second)
    assert overwritten == [True, True]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_backward_pass_takes_two_tensors(name: str) -> None:
    def run(x: Tensor) -> Tensor:
        # What saves its input gets one that is computed again; what saves its result, the unit's own.
        return ACTIVATIONS[name](x * 3 if "lu" in name and name != "relu" else x) * 2

    like = TensorLike(SIZE, (37 * 129, 129, 1), torch.float32, torch.device("cpu"), requires_grad=True)
    counted = count_unit(partial(selective, run), [], like, nullcontext)
    # What was computed again, with the gradient written over it, and the gradient that came; and two scalars.
    assert counted.backward == pytest.approx(2 * 4 * 5 * 37 * 129, abs=8)
