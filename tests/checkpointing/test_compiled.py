"""Plans under `torch.compile`: units are compiled, each alone, and no bit differs from those without checkpointing."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch._functorch import config as functorch_config
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional

from aerofuse import disable_gradient_checkpointing, enable_gradient_checkpointing
from aerofuse.checkpointing import follow as follow_module
from aerofuse.checkpointing import offload
from aerofuse.checkpointing.attached import attached_to
from aerofuse.checkpointing.choosing import attach
from aerofuse.checkpointing.steps import ChainPlan
from tests.checkpointing.networks import NETWORKS, Row, network_and_images
from tests.checkpointing.test_follow import PLANS, follow, step

aot_eager = torch._dynamo.lookup_backend("aot_eager")


@pytest.fixture(autouse=True)
def _compiles_anew() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    with torch._dynamo.config.patch(recompile_limit=64):
        yield


class Compiler:
    """A backend that counts what it has compiled."""

    def __init__(self) -> None:
        self.graphs: list[torch.fx.GraphModule] = []

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        self.graphs.append(graph)
        return aot_eager(graph, inputs)


def compiled_step(network: nn.Module, images: Tensor) -> list[Tensor]:
    return step(torch.compile(network, backend="aot_eager"), images)  # type: ignore[arg-type]


def assert_close(expected: list[Tensor], found: list[Tensor]) -> None:
    torch.testing.assert_close(expected, found, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("plan", ["recompute_all", "selective", "one_range", "offload"])
@pytest.mark.parametrize("name", NETWORKS)
def test_no_bit_differs_when_units_are_compiled(name: str, plan: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offload, "LEAST_BYTES", 1)
    network, images = network_and_images(name)
    original = copy.deepcopy(network)
    follow(original, images, ChainPlan.save_all)
    follow(network, images, PLANS[plan])
    for _ in range(2):
        expected, found = (compiled_step(one, images) for one in (original, network))
        assert len(expected) == len(found)
        assert all(torch.equal(*pair) for pair in zip(expected, found, strict=True))


@pytest.mark.parametrize("plan", ["any_0", "any_3"])
@pytest.mark.parametrize("name", NETWORKS)
def test_units_that_are_seen_into_are_not_compiled(name: str, plan: str) -> None:
    network, images = network_and_images(name)
    original = copy.deepcopy(network)
    follow(network, images, PLANS[plan])
    for _ in range(2):  # a compiler sums in another order
        assert_close(step(original, images), compiled_step(network, images))


@pytest.mark.parametrize("name", NETWORKS)
def test_two_forward_passes_may_wait_for_one_backward_pass(name: str) -> None:
    """Statistics that the second one writes are no part of what the first one has saved."""
    network, images = network_and_images(name)
    original = copy.deepcopy(network)
    follow(original, images, ChainPlan.save_all)
    follow(network, images, PLANS["recompute_all"])
    gradients = []
    for one in (original, network):
        torch.manual_seed(1)
        compiled = torch.compile(one, backend="aot_eager")
        losses = [compiled(batch.clone()).square().mean() for batch in (images, 2 * images)]
        sum(losses).backward()
        gradients.append([parameter.grad for parameter in one.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True) if pair[0] is not None)


def test_units_are_compiled_once_for_each_kind() -> None:
    network, images = Row(num_blocks=6).train(), torch.randn(2, 3, 16, 16)
    follow(network, images, PLANS["recompute_all"])
    compiler = Compiler()
    compiled = torch.compile(network, backend=compiler)
    for _ in range(3):
        step(compiled, images)  # type: ignore[arg-type]
    units = [unit.name for chain in attach(network).chains for unit in chain]
    assert len([name for name in units if name.startswith("stage.")]) == 6
    # Five of the six blocks are alike; the others are the layers of the stem and of the head.
    assert len(compiler.graphs) == 2 + 3 + 2
    assert sum(counters["graph_break"].values()) <= len(units)


def saved_bytes(network: nn.Module, images: Tensor, compiled: Callable[..., Tensor]) -> int:
    """What is saved outside of parameters."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if (key := tensor.untyped_storage().data_ptr()) not in weights:
            found[key] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        output = compiled(images)
    output.square().mean().backward()
    return sum(found.values())


@pytest.mark.parametrize("name", ["Row", "Permuted", "UNet", "Shared", "Branches"])
def test_less_is_saved_of_compiled_units(name: str) -> None:
    network, _ = network_and_images(name)
    images = torch.randn(2, 3, 32, 32)
    compiled = torch.compile(network, backend="aot_eager")
    follow(network, images, ChainPlan.save_all)
    before = saved_bytes(network, images, compiled)
    follow(network, images, PLANS["recompute_all"])
    assert saved_bytes(network, images, compiled) < 0.8 * before


@pytest.mark.parametrize("settings", [{"budget": 0.7}, {"policy": "selective"}, {"segments": 2}, {}])
def test_a_compiled_network_takes_any_policy(settings: dict[str, Any]) -> None:
    network, images = Row(num_blocks=4).train(), torch.randn(4, 3, 16, 16)
    twin = copy.deepcopy(network)
    compiled = torch.compile(twin, backend="aot_eager")
    assert_close(step(network, images), step(compiled, images))  # type: ignore[arg-type]
    enable_gradient_checkpointing(twin, **settings)
    assert_close(step(network, images), step(compiled, images))  # type: ignore[arg-type]


class Dropped(nn.Module):
    """Blocks that draw random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(DroppedBlock() for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.blocks(x)
        return output


class DroppedBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.wide, self.narrow = nn.LayerNorm(16), nn.Linear(16, 64), nn.Linear(64, 16)

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.dropout(functional.gelu(self.wide(self.norm(x))), 0.3, self.training)
        return x + functional.dropout(self.narrow(hidden), 0.2, self.training)


@pytest.mark.slow
def test_inductor_computes_units_again_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """And bit for bit: in the second run it draws the random numbers of the first."""
    network, x = Dropped().train(), torch.randn(8, 16)
    original = copy.deepcopy(network)
    follow(original, x, ChainPlan.save_all)
    follow(network, x, PLANS["recompute_all"])
    ranges: list[object] = []
    monkeypatch.setattr(follow_module, "_RecomputedStepRun", ranges.append)
    outcomes = []
    for one in (original, network):
        compiled = torch.compile(one)
        outcomes.append([found for _ in range(2) for found in step(compiled, x)])  # type: ignore[arg-type]
    assert all(torch.equal(*pair) for pair in zip(*outcomes, strict=True))
    assert not ranges


@pytest.mark.slow
@pytest.mark.parametrize("plan", [None, "recompute_all"])
def test_a_plan_is_exact_with_dropout_where_the_knob_of_torch_is_not(plan: str | None) -> None:
    """Why units are not compiled under the knob (pytorch#190758). Where this fails, torch has mended it."""
    network, x = Dropped().train(), torch.randn(8, 16)

    def compiled() -> list[Tensor]:
        torch._dynamo.reset()
        return step(torch.compile(network), x)  # type: ignore[arg-type]

    follow(network, x, ChainPlan.save_all)
    output, *gradients, _ = compiled()
    if plan is not None:
        follow(network, x, PLANS[plan])
    with functorch_config.patch(activation_memory_budget=0.2 if plan is None else 1.0):
        again, *others, _ = compiled()
    assert torch.equal(output, again)
    assert all(torch.equal(*pair) for pair in zip(gradients, others, strict=True)) == (plan is not None)


def test_a_network_without_checkpointing_is_one_graph() -> None:
    network, images = network_and_images("Row")
    disable_gradient_checkpointing(enable_gradient_checkpointing(network))
    assert attached_to(network)
    compiler = Compiler()
    torch.compile(network, backend=compiler, fullgraph=True)(images)
    assert len(compiler.graphs) == 1


def test_a_network_that_is_not_trained_is_one_graph() -> None:
    network, images = network_and_images("Row")
    follow(network, images, PLANS["recompute_all"])
    expected = network.eval()(images)
    torch.testing.assert_close(torch.compile(network, backend="aot_eager", fullgraph=True)(images), expected)


def test_a_compiled_unit_is_followed() -> None:
    network, images = network_and_images("Row")
    expected = step(copy.deepcopy(network), images)
    follow(network, images, PLANS["one_range"])
    network.get_submodule("stage.1").compile(backend="aot_eager")
    found = step(network, images)
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other)


def test_what_cannot_be_compiled_is_refused_by_name() -> None:
    network, images = network_and_images("Row")
    follow(network, images, PLANS["recompute_all"])
    with pytest.raises(torch._dynamo.exc.Unsupported, match="gradient checkpointing compiles each unit alone"):
        torch.compile(network, backend="aot_eager", fullgraph=True)(images)
    part = copy.deepcopy(network)
    part.get_submodule("stage.1.conv2").compile(backend="aot_eager")
    with pytest.raises(RuntimeError, match=r"stage\.1\.conv2 is compiled alone: torch\.compile the whole network"):
        part(images)
    network.get_submodule("stage").add_module("1", torch.compile(part.get_submodule("stage.1")))  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match=r"a Residual is compiled alone: torch\.compile the whole network"):
        network(images)


def test_a_weight_that_a_compiled_range_has_read_may_not_change() -> None:
    network, images = network_and_images("Row")
    follow(network, images, PLANS["one_range"])
    output = torch.compile(network, backend="aot_eager")(images)
    with torch.no_grad():
        network.get_parameter("stage.1.conv2.weight").mul_(2)
    with pytest.raises(RuntimeError, match=r"conv2\.weight .* was changed in place between the forward and the back"):
        output.sum().backward()


def test_the_last_batch_may_be_smaller() -> None:
    network, images = network_and_images("Row")
    original = copy.deepcopy(network)
    run = partial(torch.compile, backend="aot_eager")
    follow(network, images, PLANS["one_range"])
    follow(original, images, ChainPlan.save_all)
    first, second = run(original), run(network)
    for batch in (images, images[:1], images):
        expected, found = step(first, batch), step(second, batch)  # type: ignore[arg-type]
        assert all(torch.equal(*pair) for pair in zip(expected, found, strict=True))
