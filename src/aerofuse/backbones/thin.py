"""A thin ConvNeXt and a thin Swin for two CPU cores: timm's own classes, fewer and narrower blocks.

Registered with timm, so that they are created by name like every other model. Their weights come with the
repository (`data/weights`, made by `make pretrain`).
"""

from __future__ import annotations

from typing import Any

from aerofuse.torchvision_pairing import ensure_torchvision_imports

ensure_torchvision_imports()

from timm.models import register_model  # noqa: E402
from timm.models.convnext import ConvNeXt  # noqa: E402
from timm.models.swin_transformer import SwinTransformer  # noqa: E402


@register_model
def convnext_thin(pretrained: bool = False, **kwargs: Any) -> ConvNeXt:
    """ConvNeXt (arXiv 2201.03545) with widths 24 to 192 and 10 blocks: 1.1 M parameters, 192 features.

    Two things differ from the published tables, for small images and short trainings: timm's overlapping stem
    (as in its `convnext_*_ols`), and a layer scale that starts at 1 instead of switching blocks on from 1e-6.
    """
    _refuse_hub_weights("convnext_thin", pretrained)
    settings: dict[str, Any] = {"stem_type": "overlap_tiered", "ls_init_value": 1.0} | _without_timm_extras(kwargs)
    return ConvNeXt(dims=(24, 48, 96, 192), depths=(2, 2, 4, 2), **settings)


@register_model
def swin_thin(pretrained: bool = False, **kwargs: Any) -> SwinTransformer:
    """Swin Transformer (arXiv 2103.14030) with widths 24 to 192, 10 blocks, windows of 6: 1.5 M parameters.

    Made for 96 px: four stages of 24, 12, 6 and 3 tokens a side. 192 features.
    """
    _refuse_hub_weights("swin_thin", pretrained)
    kwargs = {"img_size": 96} | _without_timm_extras(kwargs)
    return SwinTransformer(embed_dim=24, depths=(2, 2, 4, 2), num_heads=(2, 4, 6, 12), window_size=6, **kwargs)


def _refuse_hub_weights(name: str, pretrained: bool) -> None:
    if pretrained:
        raise ValueError(f"{name} is not on the hub; its weights come with the repository (weights.source: bundled)")


def _without_timm_extras(kwargs: dict[str, Any]) -> dict[str, Any]:
    """timm's factory passes settings for downloading, which mean nothing for these."""
    extras = {"pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}
    return {name: value for name, value in kwargs.items() if name not in extras}
