"""Checkpointing changes no bit: every variant, every policy, several numbers of segments, float32 and bf16."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from aerofuse.backbones.backbone import Backbone
from tests.backbones.conftest import VARIANTS, chains_of, small_backbone, small_batch

pytestmark = pytest.mark.slow


def _bits(tensor: Tensor) -> int:
    """A digest of every bit. Copies of all gradients of the largest networks would fill the machine."""
    # Nobody forges gradients: a checksum finds any change, and takes a seventh of the time of SHA-256.
    return zlib.crc32(tensor.detach().reshape(-1).view(torch.uint8).numpy().data)


def two_steps(backbone: Backbone, images: Tensor, autocast: bool) -> list[int]:
    """Digests of loss, gradients, buffers and random state of two steps; the backbone is left as it was."""
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    optimizer = torch.optim.SGD(backbone.parameters(), lr=1e-3)
    torch.manual_seed(2)
    seen: list[int] = []
    for _ in range(2):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = backbone(images).float().square().mean()
        loss.backward()
        seen.append(_bits(loss))
        # Statistics of two images of a few pixels make gradients of any size.
        torch.nn.utils.clip_grad_norm_(backbone.parameters(), 1.0, error_if_nonfinite=True)
        optimizer.step()
    # After the second step's gradients; the first step's went into the weights that these were computed with.
    seen += [_bits(parameter.grad) for parameter in backbone.parameters() if parameter.grad is not None]
    seen += [_bits(buffer) for buffer in backbone.buffers()]
    seen.append(_bits(torch.get_rng_state()))
    optimizer.zero_grad()
    backbone.load_state_dict(before)
    return seen


def settings(backbone: Backbone, images: Tensor) -> list[Mapping[str, Any]]:
    policies: list[Mapping[str, Any]] = [{"policy": policy} for policy in ("recompute_all", "selective", "offload")]
    longest = max(map(len, chains_of(backbone, images)))
    return policies + [{"segments": segments} for segments in (1, 2, 4, longest)]


@pytest.mark.parametrize("precision", ["float32", pytest.param("bf16", marks=pytest.mark.largest)])
@pytest.mark.parametrize("variant", VARIANTS)
def test_two_steps_are_the_same_bit_for_bit(variant: str, precision: str) -> None:
    backbone, images = small_backbone(variant), small_batch(variant)
    expected = two_steps(backbone, images, precision == "bf16")
    assert len(expected) > len(list(backbone.parameters()))
    for setting in settings(backbone, images):
        backbone.enable_gradient_checkpointing(**setting)
        found = two_steps(backbone, images, precision == "bf16")
        assert len(found) == len(expected), setting
        different = [index for index, pair in enumerate(zip(expected, found, strict=True)) if pair[0] != pair[1]]
        assert different == [], setting


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_units_are_most_of_the_network(variant: str) -> None:
    backbone, images = small_backbone(variant), small_batch(variant)
    chains = chains_of(backbone, images)
    names = [unit.name for chain in chains for unit in chain]
    assert len(set(names)) == len(names) >= 8
    assert len(chains) <= 3
    used = {
        parameter.shape
        for chain in chains
        for unit in chain
        for part in unit.modules
        for parameter in part.parameters()
    }
    stray = [name for name, parameter in backbone.model.named_parameters() if parameter.shape not in used]
    # The class token and the position table of a vision transformer are no module's.
    assert set(stray) <= {"cls_token", "pos_embed"}
