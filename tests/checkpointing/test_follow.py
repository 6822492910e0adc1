"""A network's own forward pass under plans of its chains: no bit differs, whatever the network does in between."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aerofuse.checkpointing import offload
from aerofuse.checkpointing.attached import attached_to
from aerofuse.checkpointing.choosing import attach, trace_chains
from aerofuse.checkpointing.find_units import names_of
from aerofuse.checkpointing.follow import Follower
from aerofuse.checkpointing.steps import ChainPlan, Offload, Recompute, SaveAll, SaveSome, Step
from aerofuse.checkpointing.unit_calls import FoundChain, FoundUnit, UnitForward
from aerofuse.memory.counter import LiveBytes
from tests.checkpointing.networks import NETWORKS, Row, network_and_images


class Fixed:
    """The same chains and plans for all inputs."""

    def __init__(self, chains: tuple[FoundChain, ...], plans: list[ChainPlan]) -> None:
        self.policy = "fixed"
        self._chains, self._plans = chains, plans

    def choose(self, *_: object, **__: object) -> tuple[tuple[FoundChain, ...], list[ChainPlan]]:
        return self._chains, self._plans


def follow(network: nn.Module, images: Tensor, plan_for: Callable[[int], ChainPlan]) -> None:
    """Let a network follow plans that are made for the lengths of its chains."""
    chains = names_of(trace_chains(copy.deepcopy(network), (images,), {}))
    attach(network).choose_by(Fixed(chains, [plan_for(len(chain)) for chain in chains]))


def one_range(length: int) -> ChainPlan:
    return ChainPlan((Recompute(tuple(SaveAll(unit) for unit in range(length))),))


def one_row(length: int) -> ChainPlan:
    return ChainPlan((SaveSome(0, (), count=length),))


def in_turns(length: int) -> ChainPlan:
    def step(unit: int) -> Step:
        return (Offload(unit), Offload(unit), Recompute((SaveAll(unit),)), Offload(unit), SaveSome(unit, ()))[unit % 5]

    return ChainPlan(tuple(map(step, range(length))))


def any_plan(seed: int) -> Callable[[int], ChainPlan]:
    rng = random.Random(seed)

    def steps(first: int, end: int) -> Iterator[Step]:
        while first < end:
            stop = rng.randint(first + 1, end)
            kind = rng.choice(["recompute", "all", "some", "expensive"])
            if kind == "recompute":
                yield Recompute(tuple(steps(first, stop)))
                first = stop
            elif kind == "all":
                yield SaveAll(first)
                first += 1
            else:
                yield SaveSome(first, None if kind == "expensive" else (), rng.random() < 0.5, count=stop - first)
                first = stop

    return lambda length: ChainPlan(tuple(steps(0, length)))


PLANS: dict[str, Callable[[int], ChainPlan]] = {
    "recompute_all": ChainPlan.recompute_all,
    "selective": ChainPlan.selective,
    "one_range": one_range,
    "one_row": one_row,
    "offload": ChainPlan.offload_all,
    "in_turns": in_turns,
    **{f"any_{seed}": any_plan(seed) for seed in range(4)},
}


@pytest.fixture(autouse=True)
def _every_tensor_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offload, "LEAST_BYTES", 1)


def step(network: nn.Module, images: Tensor, run: Callable[[nn.Module, Tensor], Tensor] | None = None) -> list[Tensor]:
    """The output, gradients, buffers and random state of a step."""
    torch.manual_seed(1)
    network.zero_grad()
    output = network(images) if run is None else run(network, images)
    output.square().mean().backward()
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    buffers = [buffer.clone() for buffer in network.buffers()]
    return [output.detach(), *gradients, *buffers, torch.get_rng_state()]


def assert_same(network: nn.Module, images: Tensor, run: Callable[[nn.Module, Tensor], Tensor] | None = None) -> None:
    """Against a copy that follows no plan, in two steps."""
    original = copy.deepcopy(network)
    for attached in attached_to(original):
        attached.choose_by(None)
    for _ in range(2):
        expected, found = (step(one, images, run) for one in (original, network))
        assert len(expected) == len(found)
        assert all(torch.equal(*pair) for pair in zip(expected, found, strict=True))


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("name", NETWORKS)
def test_no_bit_differs(name: str, plan: str) -> None:
    network, images = network_and_images(name)
    follow(network, images, PLANS[plan])
    assert_same(network, images)


def activation_bytes(network: nn.Module, images: Tensor) -> int:
    with LiveBytes(network, None, [images]) as live:
        network(images).square().mean().backward()
    network.zero_grad()
    return live.report().peak_activation_bytes


@pytest.mark.parametrize("name", ["Row", "Permuted", "UNet", "Dense", "Shared", "Branches"])
def test_less_is_saved(name: str) -> None:
    network, _ = network_and_images(name)
    images = torch.randn(2, 3, 32, 32)
    before = activation_bytes(network, images)
    follow(network, images, ChainPlan.recompute_all)
    assert activation_bytes(network, images) < 0.8 * before


def test_a_range_saves_less_than_its_units() -> None:
    network, images = Row(6).train(), torch.randn(2, 3, 32, 32)
    follow(network, images, ChainPlan.selective)
    selective = activation_bytes(network, images)
    follow(network, images, lambda length: ChainPlan((Recompute(tuple(SaveSome(i, ()) for i in range(length))),)))
    assert activation_bytes(network, images) < selective


def doubled(_module: nn.Module, _inputs: object, outputs: Tensor) -> Tensor:
    return 2 * outputs


@pytest.mark.parametrize("plan", ["one_range", "one_row", "selective"])
def test_hooks_see_what_they_saw_once(plan: str) -> None:
    network, images = network_and_images("Row")
    follow(network, images, PLANS[plan])
    seen: list[Tensor] = []
    network.get_submodule("stage.1").register_forward_hook(lambda *values: seen.append(values[2].detach()))
    assert_same(network, images)
    assert len(seen) == 4  # two steps, of the network and of its copy
    network.get_submodule("stage.0").register_forward_hook(doubled)
    network.get_submodule("stage").register_forward_hook(doubled)
    assert_same(network, images)


@pytest.mark.parametrize("plan", PLANS)
def test_parts_that_are_called_alone(plan: str) -> None:
    network, images = network_and_images("Row")
    follow(network, images, PLANS[plan])
    network(images).sum().backward()
    assert_same(network, images, lambda network, images: network.forward_features(images))  # type: ignore[operator]

    def from_the_middle(network: nn.Module, images: Tensor) -> Tensor:
        x: Tensor = network.get_submodule("bn")(network.get_submodule("conv")(images))
        for block in list(network.get_submodule("stage").children())[1:]:
            x = block(x)
        return x

    assert_same(network, images, from_the_middle)


@pytest.mark.parametrize("plan", PLANS)
def test_two_passes_before_one_backward_pass(plan: str) -> None:
    network, images = network_and_images("Row")
    follow(network, images, PLANS[plan])
    assert_same(network, images, lambda network, images: network(images) + network(images.flip(0)))


@pytest.mark.parametrize("plan", PLANS)
def test_a_pass_that_ends_early(plan: str) -> None:
    class EarlyError(Exception):
        pass

    def run(network: nn.Module, images: Tensor) -> Tensor:
        found: list[Tensor] = []

        def stop(_module: nn.Module, _inputs: object, outputs: Tensor) -> None:
            found.append(outputs)
            raise EarlyError

        handle = network.get_submodule("stage.1").register_forward_hook(stop)
        try:
            network(images)
        except EarlyError:
            return found[0]
        finally:
            handle.remove()
        raise AssertionError

    network, images = network_and_images("Row")
    follow(network, images, PLANS[plan])
    assert_same(network, images, run)
    assert_same(network, images)


def test_random_numbers_drawn_between_units() -> None:
    network, images = network_and_images("Row")
    follow(network, images, one_range)
    network.get_submodule("stage.0").register_forward_hook(lambda *_: torch.rand(1) and None)
    assert_same(network, images)


def test_a_copy_follows_with_its_own_weights() -> None:
    network, images = network_and_images("Row")
    follow(network, images, one_range)
    network(images)
    twin = copy.deepcopy(network)
    (taker,) = attached_to(twin)
    assert taker.network is twin
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(1.1)
    assert_same(twin, images)
    part: Any = copy.deepcopy(network.stage)
    assert isinstance(part[0].forward, UnitForward)
    assert attached_to(part) == []
    assert part(torch.randn(2, 8, 4, 4)).requires_grad


def test_the_network_is_as_before_when_nothing_is_followed_any_more() -> None:
    network, images = network_and_images("Row")
    follow(network, images, one_range)
    network(images)
    attach(network).choose_by(None)
    assert all("forward" not in vars(module) for module in network.modules() if module is not network)
    assert_same(network, images)


def test_a_plan_for_another_chain_is_refused() -> None:
    with pytest.raises(ValueError, match="a plan for 6 units cannot be followed by a chain of 1"):
        Follower(Row(), [[FoundUnit(("conv",))]], [ChainPlan.selective(6)])
