"""A thin ConvNeXt and a thin Swin for two CPU cores: timm's own classes, fewer and narrower blocks.

Registered with timm, so that they are created by name like every other model. Their weights come with the
repository (`data/weights`, made by `make pretrain`).
"""

from __future__ import annotations

from typing import Any

from aerofuse.common.torchvision_pairing import ensure_torchvision_imports

ensure_torchvision_imports()

from timm.models import register_model  # noqa: E402
from timm.models.convnext import ConvNeXt  # noqa: E402
from timm.models.swin_transformer import SwinTransformer  # noqa: E402


@register_model
def convnext_thin(pretrained: bool = False, **kwargs: Any) -> ConvNeXt:
    """ConvNeXt (arXiv 2201.03545) with widths 16 to 160 and 7 blocks: 0.5 M parameters, 160 features.

    Two things differ from the published tables, for small images and short trainings: patches of 2 instead of 4
    pixels, so that an engine of a few pixels is still seen (and narrower stages, so that it costs no more), and a
    layer scale that starts at 1 instead of switching blocks on from 1e-6.
    """
    _refuse_hub_weights("convnext_thin", pretrained)
    settings: dict[str, Any] = {"ls_init_value": 1.0} | _without_timm_extras(kwargs)
    return ConvNeXt(patch_size=2, dims=(16, 32, 80, 160), depths=(1, 2, 3, 1), **settings)


@register_model
def swin_thin(pretrained: bool = False, **kwargs: Any) -> SwinTransformer:
    """Swin Transformer (arXiv 2103.14030) with widths 20 to 160, 8 blocks, windows of 4: 0.9 M parameters.

    Made for 96 px: patches of 3 pixels, then four stages of 32, 16, 8 and 4 tokens a side. 160 features.
    """
    _refuse_hub_weights("swin_thin", pretrained)
    settings: dict[str, Any] = {"img_size": 96} | _without_timm_extras(kwargs)
    return SwinTransformer(
        patch_size=3, embed_dim=20, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8), window_size=4, **settings
    )


def _refuse_hub_weights(name: str, pretrained: bool) -> None:
    if pretrained:
        raise ValueError(f"{name} is not on the hub; its weights come with the repository (weights.source: bundled)")


def _without_timm_extras(kwargs: dict[str, Any]) -> dict[str, Any]:
    """timm's factory passes settings for downloading, which mean nothing for these."""
    extras = {"pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}
    return {name: value for name, value in kwargs.items() if name not in extras}
