from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from aerofuse.memory.fake import FakeCopy
from aerofuse.memory.torch_private import VALUES_ASKED_FOR, FakeTensor


class _WithConstant(nn.Module):
    """A model that keeps a tensor which is neither parameter nor buffer, and uses one parameter twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.second.bias.requires_grad_(False)
        self.register_buffer("scale", torch.ones(4, dtype=torch.float64))
        self.constant = torch.ones(4)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.second(self.first(inputs)) * self.scale + self.constant
        return outputs


def test_a_fake_copy_has_the_shape_of_its_original() -> None:
    model = _WithConstant()
    with FakeCopy(model).active() as copy:
        outputs = copy(torch.rand(2, 4))
    assert outputs.shape == (2, 4)
    assert outputs.dtype == torch.float64
    assert isinstance(copy, _WithConstant)
    assert copy.second.weight is copy.first.weight
    assert not copy.second.bias.requires_grad
    assert model.state_dict().keys() == copy.state_dict().keys()
    for original, fake in zip(model.parameters(), copy.parameters(), strict=True):
        assert isinstance(fake, nn.Parameter)
        assert fake.untyped_storage().nbytes() == original.untyped_storage().nbytes()
        assert type(original.data) is Tensor


def test_a_model_on_meta_becomes_one_on_the_cpu() -> None:
    with FakeCopy(nn.Linear(4, 4, device="meta")).active() as copy:
        assert copy.weight.device == torch.device("cpu")


def test_a_layout_is_kept() -> None:
    model = nn.Conv2d(8, 8, 3)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with FakeCopy(model).active() as copy:
        assert isinstance(copy, nn.Conv2d)
        assert copy.weight.stride() == model.weight.stride()


def _statistics_types(make_norm: Callable[[], nn.Module]) -> list[torch.dtype]:
    inputs = torch.rand(2, 4, 3, 3).to(torch.bfloat16)
    node = make_norm()(inputs.requires_grad_()).grad_fn
    saved = [getattr(node, name) for name in dir(node) if name.startswith("_saved_result")]
    return [tensor.dtype for tensor in saved if tensor is not None]


@pytest.mark.parametrize(
    "make_norm",
    [
        lambda: nn.BatchNorm2d(4),
        lambda: nn.BatchNorm2d(4, affine=False),
        lambda: nn.BatchNorm2d(4, affine=False, track_running_stats=False),
        lambda: nn.LayerNorm(3),
        lambda: nn.LayerNorm(3, elementwise_affine=False),
        lambda: nn.LayerNorm(3, dtype=torch.bfloat16),
        lambda: nn.GroupNorm(2, 4),
    ],
)
def test_norms_save_the_same_types_on_fake_tensors(make_norm: Callable[[], nn.Module]) -> None:
    real = _statistics_types(make_norm)
    with FakeCopy(nn.Identity()).active():
        fake = _statistics_types(make_norm)
    assert len(real) == 2
    assert real == fake


@pytest.mark.parametrize(
    "forward",
    [lambda x: x * 2 if x.sum() > 0 else x, lambda x: x[x > 0], lambda x: x * x.max().item()],
    ids=["branch", "mask", "number"],
)
def test_a_model_that_asks_for_values_is_named(forward: Callable[[Tensor], Tensor]) -> None:
    class Curious(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return forward(inputs)

    message = r"Curious does what depends on the values of a tensor \(aten\."
    with pytest.raises(ValueError, match=message), FakeCopy(Curious()).active() as copy:
        copy(torch.rand(2))


def test_answers_from_memory_are_those_of_torch() -> None:
    def layouts() -> list[object]:
        x = torch.rand(2, 3, 4).requires_grad_()
        left, right = x.transpose(0, 2).unbind(1)[:2]
        y = torch.nn.functional.gelu((left * right).contiguous().view(8, 1)).bernoulli(0.5)
        z = torch.nn.functional.gelu(x @ torch.rand(4, 5)).softmax(1)
        z.sum().backward()
        assert x.grad is not None
        places = [tensor.untyped_storage()._cdata for tensor in (x, left, right)]
        assert places == places[:1] * 3
        tensors = (left, right, y, z, x.grad)
        return [(one.shape, one.stride(), one.storage_offset(), one.dtype, one.device) for one in tensors]

    expected = layouts()
    for _ in range(3):
        with FakeCopy(nn.Identity()).active():
            assert layouts() == expected


def test_values_that_are_known_stay_known_and_are_no_longer_so_after_what_is_not() -> None:
    with FakeCopy(nn.Identity()).active():
        steps, other = torch.tensor(2.0), torch.rand(())
        for _ in range(3):
            steps += 1
        assert (float(steps), type(steps)) == (5.0, FakeTensor)
        steps.add_(1, alpha=2)
        assert float(steps) == 7.0
        steps += other
        with pytest.raises(VALUES_ASKED_FOR):
            float(steps)
        with pytest.raises(VALUES_ASKED_FOR):
            float(other)


def test_old_objects_are_collected_again_afterwards() -> None:
    before = gc.get_threshold()
    with FakeCopy(nn.Identity()).active():
        assert gc.get_threshold()[2] > before[2]
    assert gc.get_threshold() == before
