"""Units are found where a person would cut a network."""

from __future__ import annotations

import copy

import torch
from torch import nn

from aerofuse.checkpointing.choosing import trace_chains
from aerofuse.checkpointing.find_units import names_of
from tests.checkpointing.networks import NETWORKS, network_and_images

FOUND = {
    "Row": [["conv to act", "stage.0", "stage.1", "stage.2", "pool", "head"]],
    "Permuted": [["conv to act", "stage.0", "stage.1", "stage.2", "pool", "head"]],
    "UNet": [["stem", "down.0", "down.1"], ["inner.0", "inner.1"], ["join", "up.0", "up.1"]],
    "Dense": [["stem", *(f"layers.{number}" for number in range(7))]],
    "SideInputs": [["embed", "blocks.0", "blocks.1", "blocks.2"]],
    "Shared": [["stem", "block", "block", "other"], ["block"]],
    "Branches": [["stem", "left.0.0", "left.0.1"], ["right.0.0", "right.0.1"], ["left.1.0", "left.1.1"]],
    "Plain": [["0 to 1", "2 to 3", "4 to 5", "6 to 7", "8 to 9", "10 to 11"]],
    "Encoded": [["0", "1", "2", "3"]],
    "Overwritten": [["stem", "block to act", "other"], ["head"]],
}


def found(network: nn.Module, images: torch.Tensor) -> list[list[str]]:
    chains = names_of(trace_chains(copy.deepcopy(network), (images,), {}))
    return [[unit.name for unit in chain] for chain in chains]


def test_units_and_chains() -> None:
    assert FOUND.keys() == NETWORKS.keys()
    for name, expected in FOUND.items():
        assert found(*network_and_images(name))[: len(expected)] == expected, name


def test_a_user_says_what_a_unit_is() -> None:
    network, images = network_and_images("Row")
    chains = trace_chains(network, (images,), {}, lambda name, _: name == "stage")
    assert [unit.name for unit in names_of(chains)[0]] == ["conv to act", "stage", "pool", "head"]


def test_what_does_not_learn_is_no_unit() -> None:
    network, images = network_and_images("Row")
    network.requires_grad_(False).get_submodule("head").requires_grad_(True)
    assert found(network, images) == [["head"]]


def test_a_trace_leaves_the_network_as_it_was() -> None:
    network, images = network_and_images("Row")
    block = network.get_submodule("stage.1")
    block.forward = own = block.forward
    trace_chains(network, (images,), {})
    with_forward = [module for module in network.modules() if "forward" in vars(module)]
    assert with_forward == [block]
    assert block.forward is own
