"""What the tests of backbones share: every variant, small, with everything random switched on."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aerofuse.backbones.backbone import Backbone, create_backbone
from aerofuse.backbones.families import FAMILIES, family_of
from aerofuse.checkpointing.chain import Unit
from aerofuse.checkpointing.choosing import trace_chains
from aerofuse.planning.bound_units import bind

SMALLEST = {name: family.variants[0] for name, family in FAMILIES.items()}
VARIANTS = [
    pytest.param(variant, marks=() if variant == SMALLEST[name] else pytest.mark.largest)
    for name, family in FAMILIES.items()
    for variant in (*family.variants, *family.packaged)
]
BATCH = 2
# Each family with fewer and narrower blocks, of all kinds that it has: in timm's settings, or another small network.
_SHRUNKEN: dict[str, dict[str, Any]] = {
    "resnet": {"layers": (1, 1, 1, 1), "channels": (8, 16, 24, 32)},
    "mobilenet": {"model_name": "mobilenetv2_035"},
    "efficientnet": {"model_name": "mnasnet_small"},
    "efficientnetv2": {"model_name": "test_efficientnet"},
    "regnet": {"model_name": "regnety_002"},
    "vit": {"embed_dim": 48, "depth": 2, "num_heads": 2},
    "swin": {"embed_dim": 16, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 4, 8)},
    "swin3d": {"embed_dim": 16, "depths": [1, 2, 1, 1], "num_heads": [1, 2, 4, 8]},
    "maxvit": {"stem_width": 16, "embed_dim": (32, 32, 64, 64), "depths": (1, 1, 1, 1)},
    "convnext": {"dims": (16, 16, 32, 48), "depths": (1, 1, 2, 1)},
}


def _smallest_image_px(family: str) -> int:
    """The least side that all variants of a family take."""
    return 64 if family == "maxvit" else 32


def small_backbone(variant: str) -> Backbone:
    """In training mode, with dropout and drop-path on; the same weights each time."""
    return copy.deepcopy(_small_original(variant))


@functools.lru_cache(maxsize=1)  # drawing random weights takes longer than a step with them
def _small_original(variant: str) -> Backbone:
    torch.manual_seed(0)
    size = _smallest_image_px(family_of(variant))
    return create_backbone(variant, image_size_px=size, dropout=0.1, drop_path=0.2).train()


def shrunken_backbone(family: str) -> Backbone:
    """One of fewer and narrower blocks, else like `small_backbone`: where it is about the switch, not the network."""
    return copy.deepcopy(_shrunken_original(family))


@functools.lru_cache(maxsize=1)
def _shrunken_original(family: str) -> Backbone:
    torch.manual_seed(0)
    return Backbone(SMALLEST[family], _shrunken_network(family)).train()


def _shrunken_network(family: str) -> nn.Module:
    # After our own modules, which pair torchvision with this torch.
    import timm
    from torchvision.models.video import SwinTransformer3d

    if family == "swin3d":
        clips: nn.Module = SwinTransformer3d([2, 4, 4], window_size=[8, 7, 7], dropout=0.1, **_SHRUNKEN[family])
        clips.head = nn.Identity()
        return clips
    settings: dict[str, Any] = {"model_name": SMALLEST[family], "drop_rate": 0.1, "drop_path_rate": 0.2}
    if family in ("vit", "swin", "maxvit"):
        settings["img_size"] = _smallest_image_px(family)
    images: nn.Module = timm.create_model(num_classes=0, **settings | _SHRUNKEN[family])
    return images


def shrunken_again(backbone: Backbone) -> Backbone:
    """The same backbone with the weights and statistics of `shrunken_backbone`, its switch as it stands."""
    backbone.load_state_dict(_shrunken_original(backbone.family).state_dict())
    return backbone


def small_batch(variant: str, batch: int = BATCH) -> Tensor:
    """Images of the least size that the family takes, or clips of four frames."""
    family = FAMILIES[family_of(variant)]
    frames = (4,) if family.input_dims == 5 else ()
    size = _smallest_image_px(family_of(variant))
    return torch.randn(batch, 3, *frames, size, size, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module", params=FAMILIES)  # all tests of one family, then the next
def family(request: pytest.FixtureRequest) -> str:
    """Each family."""
    return str(request.param)


def chains_of(backbone: Backbone, images: Tensor) -> list[list[Unit]]:
    """The units of each chain, as functions of one tensor, of a copy."""
    twin = copy.deepcopy(backbone)
    return [[bind(unit, twin) for unit in chain] for chain in trace_chains(twin, (images,), {})]
