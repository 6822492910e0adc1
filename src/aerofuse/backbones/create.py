"""Creating a backbone by its timm name."""

from __future__ import annotations

import difflib
from typing import Any

from torch import nn

from aerofuse.backbones import thin
from aerofuse.torchvision_pairing import ensure_torchvision_imports

ensure_torchvision_imports()

import timm  # noqa: E402

# Transformers hold tables whose size follows the image's; convolutional nets take any size.
_SIZED_FAMILIES = ("swin_", "vit_", "maxvit_")

THIN_BACKBONES = (thin.convnext_thin.__name__, thin.swin_thin.__name__)


def check_backbone_name(name: str) -> None:
    """Raises `ValueError` with near names where timm does not know `name`."""
    if timm.is_model(name):
        return
    near = difflib.get_close_matches(name, timm.list_models(), n=4, cutoff=0.5)
    hint = f"near names: {', '.join(near)}" if near else "timm.list_models() names all"
    raise ValueError(f"backbone {name!r} is not known to timm {timm.__version__}; {hint}")


def create_backbone(
    name: str, *, image_size_px: int, drop_path: float = 0.0, pretrained: bool = False, **pretrained_cfg: Any
) -> nn.Module:
    """A backbone `[B, 3, H, W] -> [B, num_features]` with random weights, or timm's from the hub.

    `drop_path` is the rate of stochastic depth (arXiv 1603.09382). `pretrained_cfg` overlays timm's record of
    where its weights are.

    Raises `ValueError` where timm does not know `name`.
    """
    check_backbone_name(name)
    settings: dict[str, Any] = {"num_classes": 0, "drop_path_rate": drop_path}
    if name.startswith(_SIZED_FAMILIES):
        settings["img_size"] = image_size_px
    if pretrained:
        settings["pretrained"] = True
        settings["pretrained_cfg_overlay"] = pretrained_cfg
    backbone: nn.Module = timm.create_model(name, **settings)
    return backbone


def num_features(backbone: nn.Module) -> int:
    """The length of the vector that a backbone gives per image."""
    return int(backbone.num_features)  # type: ignore[arg-type]  # timm's models publish it, untyped
