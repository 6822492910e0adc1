"""The switch as functions, for networks that know nothing of it."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aerofuse.checkpointing.attached import Attached
from aerofuse.checkpointing.choosing import attach
from aerofuse.checkpointing.verification import verify_checkpointing
from aerofuse.memory.step import count_training_step
from aerofuse.planning.checkpointed import (
    WithinBudget,
    disable_gradient_checkpointing,
    enable_gradient_checkpointing,
    is_gradient_checkpointing_enabled,
)
from aerofuse.planning.clocks import Measured
from aerofuse.planning.estimates import Estimated
from aerofuse.planning.planner import Planner
from tests.checkpointing.networks import NETWORKS, Row, network_and_images

SETTINGS: list[Mapping[str, Any]] = [{}, {"policy": "selective"}, {"segments": 2}]
ESTIMATED = Estimated(flops_per_second=5e10, bytes_per_second=1e10)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_any_network_has_the_switch(name: str, setting: Mapping[str, Any]) -> None:
    network, images = network_and_images(name)
    assert enable_gradient_checkpointing(network, **setting) is network
    assert is_gradient_checkpointing_enabled(network)
    assert verify_checkpointing(network, images) == []
    disable_gradient_checkpointing(network)
    assert not is_gradient_checkpointing_enabled(network)


@pytest.mark.parametrize("name", NETWORKS)
def test_any_network_is_planned_for(name: str) -> None:
    network, _ = network_and_images(name)
    images = torch.randn(4, 3, 16, 16)
    planner = Planner(network, images.shape, stopwatch=ESTIMATED)
    least, baseline = planner.least(counts_everything=False).activation_bytes, planner.baseline.activation_bytes
    plan = planner.plan((least + baseline) / 2 / baseline)
    plan.apply(network)
    counted = count_training_step(network, images.shape, optimizer=None).peak_activation_bytes
    assert counted == pytest.approx(plan.predicted.activation_bytes, rel=0.02)
    assert counted <= 1.02 * (least + baseline) / 2
    assert verify_checkpointing(network, images) == []


@pytest.mark.parametrize("name", NETWORKS)
def test_the_units_of_any_network_are_timed(name: str) -> None:
    network, images = network_and_images(name)
    planner = Planner(network, images.shape, stopwatch=Measured(rounds=1))
    assert planner.least(counts_everything=False, most_time_ratio=math.inf).time_ratio > 1


def test_a_plan_is_the_same_under_autocast() -> None:
    """Autocast must not remember the copies of weights that are made on the way."""
    images = torch.randn(2, 3, 16, 16)
    plans = []
    for is_nested in (False, True):
        network = Row(6).train()
        enable_gradient_checkpointing(network, budget=0.9, example_inputs=None if is_nested else (images,))
        chooser = attach(network).chooser
        assert isinstance(chooser, WithinBudget)
        with torch.autocast("cpu", torch.bfloat16):
            network(images)
        plans.append(chooser._plans)
    alone, nested = ([plan.predicted.peak_bytes for key, plan in found.items() if key[0]] for found in plans)  # type: ignore[index]
    assert alone == nested


def test_the_last_switch_wins_over_parts_and_the_whole() -> None:
    network, images = network_and_images("Row")
    stage = network.get_submodule("stage")
    enable_gradient_checkpointing(stage, policy="selective")
    enable_gradient_checkpointing(network)
    assert attach(stage).chooser is None
    assert verify_checkpointing(network, images) == []
    enable_gradient_checkpointing(stage)
    assert verify_checkpointing(network, images) == []
    disable_gradient_checkpointing(network)
    assert not is_gradient_checkpointing_enabled(stage)


def test_it_survives_copies_and_pickles() -> None:
    network, images = network_and_images("Row")
    enable_gradient_checkpointing(network, segments=2)
    network(images)
    state = network.state_dict().keys()
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert isinstance(attach(twin), Attached)
        assert attach(twin).network is twin
        assert is_gradient_checkpointing_enabled(twin)
        assert twin.state_dict().keys() == state
        assert verify_checkpointing(twin, images) == []


class TwoInputs(nn.Module):
    """An image and a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.row = Row()

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        output: Tensor = self.row(images * mask)
        return output


def test_a_network_of_two_inputs() -> None:
    network, images, mask = TwoInputs().train(), torch.randn(2, 3, 16, 16), torch.ones(2, 1, 16, 16)
    expected = network(images, mask=mask).sum()
    enable_gradient_checkpointing(network)
    torch.testing.assert_close(network(images, mask=mask).sum(), expected, rtol=10, atol=10)
    assert any(attach(network).chains)
    enable_gradient_checkpointing(network, budget=0.5)
    with pytest.raises(ValueError, match="TwoInputs was called with 1 arguments and 1 by name: choose another policy"):
        network(images, mask=mask)


def test_a_user_may_say_what_a_unit_is() -> None:
    network, images = network_and_images("Row")
    enable_gradient_checkpointing(network, is_unit=lambda name, _: name == "stage", example_inputs=(images,))
    assert [unit.name for unit in attach(network).chains[0]] == ["conv to act", "stage", "pool", "head"]
    assert verify_checkpointing(network, images) == []


class Counting(nn.Module):
    """Its forward pass has state in Python."""

    runs = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        return torch.tanh(x * self.runs)


def test_a_network_may_be_verified_at_once() -> None:
    images = torch.randn(2, 3, 16, 16)
    network = enable_gradient_checkpointing(Row(), example_inputs=(images,), verify=True)
    assert is_gradient_checkpointing_enabled(network)
    with pytest.raises(ValueError, match="verify needs example_inputs"):
        enable_gradient_checkpointing(network, verify=True)
    network.get_submodule("stage.1").add_module("act1", Counting())
    with pytest.raises(
        RuntimeError, match=r"tensors of a training step differ, first of all loss: its forward pass has"
    ):
        enable_gradient_checkpointing(network, example_inputs=(images,), verify=True)
    assert not is_gradient_checkpointing_enabled(network)
