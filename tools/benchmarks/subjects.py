"""The networks that the benchmark measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from aerofuse.backbones.backbone import create_backbone
from aerofuse.backbones.families import FAMILIES, family_of

# Drop-path on, as in training: it adds operations.
DROP_PATH = 0.1
_CLIP_FRAMES = 16


@dataclass(frozen=True)
class Subject:
    """A network in training mode, with the shape of one sample; `resized` builds it for images of another size.

    `family` has `variants` networks, of which `variant` is one.
    """

    family: str
    variant: str
    variants: int
    model: nn.Module
    sample_shape: tuple[int, ...]
    resized: Callable[[int], Subject]
    input_dtype: torch.dtype = torch.float32

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.model.parameters()).device

    def input_shape(self, batch: int) -> tuple[int, ...]:
        """That of a batch, `[B, 3, H, W]` for images."""
        return (batch, *self.sample_shape)

    def inputs(self, batch: int) -> Tensor:
        """A batch of noise on the network's device."""
        if self.input_dtype.is_floating_point:
            return torch.randn(self.input_shape(batch), device=self.device)
        return torch.randint(0, 256, self.input_shape(batch), dtype=self.input_dtype, device=self.device)


def middle_variant(family: str) -> str:
    """The variant in the middle of a family, the smaller of two."""
    variants = FAMILIES[family].variants
    return variants[(len(variants) - 1) // 2]


def input_shape(family: str, batch: int, image_size_px: int = 224) -> tuple[int, ...]:
    """Square images `[B, 3, H, W]`; for `swin3d` clips `[B, 3, T, H, W]` of 16 frames, half as high and wide."""
    if FAMILIES[family].input_dims == 5:
        return (batch, 3, _CLIP_FRAMES, image_size_px // 2, image_size_px // 2)
    return (batch, 3, image_size_px, image_size_px)


def backbone_subject(variant: str, image_size_px: int = 224, device: torch.device | str = "cpu") -> Subject:
    """A backbone with random weights. Raises `ValueError` with near names for an unknown variant."""
    family = family_of(variant)
    backbone = create_backbone(variant, image_size_px=image_size_px, drop_path=DROP_PATH)
    return Subject(
        family,
        variant,
        len(FAMILIES[family].variants),
        backbone.to(device).train(),
        input_shape(family, 1, image_size_px)[1:],
        partial(backbone_subject, variant, device=device),
    )
