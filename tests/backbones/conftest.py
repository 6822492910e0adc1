"""What the tests of backbones share: every variant, small, with everything random switched on."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from torch import Tensor

from aerofuse.backbones.backbone import Backbone, create_backbone
from aerofuse.backbones.families import FAMILIES, family_of

SMALLEST = {name: family.variants[0] for name, family in FAMILIES.items()}
VARIANTS = [
    pytest.param(variant, marks=() if variant == SMALLEST[name] else pytest.mark.large)
    for name, family in FAMILIES.items()
    for variant in family.variants
]
BATCH = 2


def small_backbone(variant: str) -> Backbone:
    """In training mode, with dropout and drop-path on; the same weights each time."""
    return copy.deepcopy(_small_original(variant))


def small_again(backbone: Backbone) -> Backbone:
    """The same backbone with the weights and statistics of `small_backbone`, its switch as it stands."""
    backbone.load_state_dict(_small_original(backbone.variant).state_dict())
    return backbone


@functools.lru_cache(maxsize=1)  # drawing random weights takes longer than a step with them
def _small_original(variant: str) -> Backbone:
    torch.manual_seed(0)
    size = FAMILIES[family_of(variant)].smallest_image_px
    return create_backbone(variant, image_size_px=size, dropout=0.1, drop_path=0.2).train()


def small_batch(variant: str, batch: int = BATCH) -> Tensor:
    """Images of the least size that the family takes, or clips of four frames."""
    family = FAMILIES[family_of(variant)]
    frames = (4,) if family.input_dims == 5 else ()
    size = family.smallest_image_px
    return torch.randn(batch, 3, *frames, size, size, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=FAMILIES)  # all tests of one family, then the next
def variant(request: pytest.FixtureRequest) -> str:
    """The smallest variant of each family."""
    return SMALLEST[request.param]
