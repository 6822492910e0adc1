"""How much less is held: counted on fake tensors at full size, so for the largest variants too."""

from __future__ import annotations

import pytest
import torch

from aerofuse.backbones.backbone import create_backbone
from aerofuse.backbones.families import FAMILIES, family_of
from aerofuse.checkpointing.policy import NamedPolicy, RecomputeAll, Selective
from aerofuse.memory.step import count_training_step
from tests.backbones.conftest import VARIANTS
from tools.benchmarks.subjects import input_shape, middle_variant

pytestmark = pytest.mark.slow

BATCH = 8
MIDDLE = {middle_variant(family): family for family in FAMILIES}


def peak_activation_bytes(variant: str, policy: NamedPolicy | None) -> int:
    with torch.device("meta"):
        backbone = create_backbone(variant, drop_path=0.1)
    backbone.checkpointing = policy
    shape = input_shape(family_of(variant), BATCH)
    return count_training_step(backbone, shape, optimizer=None, fake=True).peak_activation_bytes


@pytest.mark.parametrize("variant", VARIANTS)
def test_checkpointing_never_takes_more(variant: str) -> None:
    baseline = peak_activation_bytes(variant, None)
    assert peak_activation_bytes(variant, Selective()) <= baseline
    recomputed = peak_activation_bytes(variant, RecomputeAll())
    assert recomputed <= baseline
    if variant in MIDDLE:
        assert recomputed <= 0.5 * baseline


@pytest.mark.parametrize("family", ["convnext", "vit", "swin"])
def test_saving_what_is_expensive_takes_a_quarter_less(family: str) -> None:
    variant = middle_variant(family)
    baseline = peak_activation_bytes(variant, None)
    assert peak_activation_bytes(variant, Selective()) <= 0.75 * baseline
