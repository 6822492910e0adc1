"""Calls in place and with `out=` inside of a unit, under every spelling: the same bits as without checkpointing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from aerofuse.checkpointing.chain import Unit
from aerofuse.checkpointing.selective import list_calls, run_selective
from aerofuse.checkpointing.steps import ChainPlan, Recompute, SaveAll, SaveSome, Step
from aerofuse.memory.counter import LiveBytes
from aerofuse.memory.report import Kind
from tests.checkpointing.planned import run_planned

Run = Callable[[Tensor], Tensor]

FLAGGED: dict[str, Run] = {
    "relu": lambda x: functional.relu(x, inplace=True),
    "relu by position": lambda x: functional.relu(x, True),
    "relu6": lambda x: functional.relu6(x, inplace=True),
    "elu": lambda x: functional.elu(x, inplace=True),
    "elu by position": lambda x: functional.elu(x, 1.0, True),
    "selu": lambda x: functional.selu(x, inplace=True),
    "celu": lambda x: functional.celu(x, inplace=True),
    "leaky_relu by position": lambda x: functional.leaky_relu(x, 0.1, True),
    "silu": lambda x: functional.silu(x, inplace=True),
    "silu by position": lambda x: functional.silu(x, True),
    "mish": lambda x: functional.mish(x, inplace=True),
    "hardswish": lambda x: functional.hardswish(x, inplace=True),
    "hardsigmoid": lambda x: functional.hardsigmoid(x, inplace=True),
    "hardtanh": lambda x: functional.hardtanh(x, inplace=True),
    "threshold": lambda x: functional.threshold(x, 0.1, 0.2, inplace=True),
    "rrelu": lambda x: functional.rrelu(x, training=True, inplace=True),
    "dropout": lambda x: functional.dropout(x, 0.3, True, True),
    "dropout with all names": lambda x: functional.dropout(input=x, p=0.3, training=True, inplace=True),
    "dropout1d": lambda x: functional.dropout1d(x, 0.3, True, inplace=True),
    "alpha_dropout": lambda x: functional.alpha_dropout(x, 0.3, True, inplace=True),
    "feature_alpha_dropout": lambda x: functional.feature_alpha_dropout(x, 0.3, True, inplace=True),
    "relu with a name": lambda x: functional.relu(input=x, inplace=True),
}
METHODS: dict[str, Run] = {
    "relu_": lambda x: x.relu_(),
    "torch.sigmoid_": torch.sigmoid_,
    "tanh_": lambda x: x.tanh_(),
    "exp_": lambda x: x.exp_(),
    "functional.elu_": lambda x: functional.elu_(x),
    "clamp_": lambda x: x.clamp_(-1, 1),
    "part of it": lambda x: x[:, ::2].mul_(2),
    "__setitem__": lambda x: (x.__setitem__((slice(None), 0), 0.0), x)[1],  # type: ignore[func-returns-value]
    "iadd": lambda x: x.__iadd__(1.5),
}


def written_over(write: Run) -> dict[str, Run]:
    """Units with a call in place: of its result, of what it has written over, and of both."""
    return {
        "result": lambda x: write(x * 2).square(),
        "target": lambda x: (hidden := x.sigmoid() * 2, write(hidden), hidden.square())[2],
        "both, and what it was": lambda x: (
            hidden := x.sin() * 2,
            before := hidden.exp(),
            write(hidden),
            (hidden * 0.5 + hidden.exp()) * before,
        )[3],
        "a product": lambda x: (hidden := x @ x.mT, write(hidden), hidden.cos().matmul(hidden))[2],
        "its unit's input": lambda x: (hidden := x.view(x.shape), write(hidden), hidden.square() + x.cos())[2],
    }


PLANS: dict[str, Step] = {
    "selective": SaveSome(0),
    "nothing saved": SaveSome(0, ()),
    "no cache": SaveSome(0, (), no_cache=True),
    "product saved": SaveSome(0, ("matmul.0", "mul.0")),
    "range": Recompute((SaveAll(0),)),
    "selective in a range": Recompute((SaveSome(0),)),
}


def outcome(run: Run, step: Step | None) -> list[Tensor]:
    torch.manual_seed(0)
    x = torch.randn(2, 6, 6, requires_grad=True)
    before = x * 1.5
    output = run(before) if step is None else run_planned([Unit("unit", run, ())], ChainPlan((step,)), before)
    return [output.detach(), *torch.autograd.grad(output.square().sum(), x), torch.get_rng_state()]


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("name", [*FLAGGED, *METHODS])
def test_a_call_in_place_changes_no_bit(name: str, plan: str) -> None:
    compared = []
    for use, run in written_over((FLAGGED | METHODS)[name]).items():
        if use == "its unit's input" and "range" in plan:
            continue  # the range saves it: see test_a_range_whose_input_is_written_over
        try:
            expected = outcome(run, None)
        except RuntimeError:
            continue  # autograd itself refuses: the call saves what it or a later one writes over
        found = outcome(run, PLANS[plan])
        assert all(map(torch.equal, found, expected)), use
        compared.append(use)
    assert len(compared) >= 3


def test_a_range_whose_input_is_written_over_is_named() -> None:
    with pytest.raises(RuntimeError, match="changed in place"):
        outcome(lambda x: functional.relu(x.view(x.shape), inplace=True).exp(), Recompute((SaveAll(0),)))


@pytest.mark.parametrize("plan", PLANS)
def test_results_that_a_call_is_given_room_for(plan: str) -> None:
    def run(x: Tensor) -> Tensor:
        room = torch.empty_like(x)
        kept = room.fill_(3).cos()
        with torch.no_grad():
            torch.sign(x, out=room)
            before = room.exp()
            torch.mul(x, 2, out=room)
        return x.sin() * room * before * kept

    assert all(map(torch.equal, outcome(run, PLANS[plan]), outcome(run, None)))


@pytest.mark.parametrize("name", ["silu", "hardswish", "mish"])
@pytest.mark.parametrize("saved", [(), ("mul.0",)])
def test_an_activation_in_place_takes_no_more_than_one_that_is_not(name: str, saved: tuple[str, ...]) -> None:
    """Autograd itself would save a copy of its input."""

    def bytes_saved(inplace: bool) -> int:
        function = getattr(functional, name)
        x = torch.randn(64, 64, requires_grad=True)
        with LiveBytes(nn.Module(), inputs=[x]) as counter:
            output = run_selective(lambda x: function(x * 2, inplace=inplace).sin() * 2, x, save=saved)
            assert output.requires_grad
            return counter.bytes_by_kind[Kind.ACTIVATIONS]

    assert bytes_saved(inplace=True) == bytes_saved(inplace=False)


def test_the_calls_of_an_activation_in_place_are_those_of_one_that_is_not() -> None:
    names = [
        [call.name for call in list_calls(lambda x, flag=flag: functional.silu(x * 2, flag) * 3, torch.randn(4, 4))]  # type: ignore[misc]
        for flag in (False, True)
    ]
    assert names[0] == names[1] == ["mul.0", "silu.0", "mul.1"]
