from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from aerofuse.memory.location import Location
from tests.memory.models import Deep


class _Spy(torch.autograd.Function):
    """Calls `look` in the forward and in the backward."""

    @staticmethod
    def forward(context: FunctionCtx, tensor: Tensor, look: Callable[[], None]) -> Tensor:
        context.look = look  # type: ignore[attr-defined]
        look()
        return tensor.clone()

    @staticmethod
    def backward(context: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        context.look()  # type: ignore[attr-defined]
        return gradient, None


class _Watched(nn.Module):
    def __init__(self, inner: nn.Module, look: Callable[[], None]) -> None:
        super().__init__()
        self.inner = inner
        self.look = look

    def forward(self, tensor: Tensor) -> Tensor:
        output: Tensor = _Spy.apply(self.inner(tensor), self.look)  # type: ignore[no-untyped-call]
        return output


def test_places_of_a_training_step() -> None:
    places: list[str] = []
    model = nn.Sequential(nn.Linear(4, 4), _Watched(nn.Linear(4, 4), lambda: places.append(location.describe())))
    whole = _Watched(model, lambda: places.append(location.describe()))
    optimizer = torch.optim.SGD(whole.parameters())
    with Location(whole, optimizer) as location:
        loss = whole(torch.rand(2, 4)).sum()
        places.append(location.describe())
        loss = _Spy.apply(loss, lambda: places.append(location.describe()))  # type: ignore[no-untyped-call]
        loss.backward()
        optimizer.register_step_pre_hook(lambda *_: places.append(location.describe()))
        optimizer.step()
        places.append(location.describe())
    assert places == [
        "forward of inner.1",
        "forward of the model",
        "forward outside of the model",
        "forward outside of the model",
        "backward outside of the model",
        "backward of the model",
        "backward of inner.1",
        "optimizer step",
        "forward outside of the model",
    ]


def test_recomputation_is_told_from_backward() -> None:
    places: list[str] = []
    model = Deep(checkpointed=True)
    model.second.append(_Watched(nn.Identity(), lambda: places.append(location.describe())))
    # A layer after it whose input is saved, so that the recomputation reaches it.
    model.second.append(nn.Tanh())
    with Location(model) as location:
        model(torch.rand(2, 32)).sum().backward()
    assert places == ["forward of second.8", "recomputation of second.8", "backward of second.8"]


def test_gradients_are_accumulated_where_their_parameter_is() -> None:
    places: list[str] = []
    last = nn.Linear(4, 4)
    model = nn.Sequential(nn.Linear(4, 4), last)
    location = Location(model)
    last.bias.register_post_accumulate_grad_hook(lambda _: places.append(location.describe()))
    with location:
        model(torch.rand(2, 4)).sum().backward()
    assert places == ["backward of 1"]


def test_other_models_are_outside() -> None:
    places: list[str] = []
    model = nn.Linear(4, 4)
    other = _Watched(model, lambda: places.append(location.describe()))
    with Location(model) as location:
        other(torch.rand(2, 4)).sum().backward()
    assert places == ["forward outside of the model", "backward outside of the model"]
