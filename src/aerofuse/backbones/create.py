"""Creating a backbone by the name of its variant."""

from __future__ import annotations

from typing import Any

from aerofuse.backbones.backbone import Backbone
from aerofuse.backbones.families import FAMILIES, family_of

# They come with the repository; all others have their weights on the hub.
THIN_BACKBONES = tuple(sorted(name for family in FAMILIES.values() for name in family.thin))


def create_backbone(
    name: str,
    *,
    pretrained: bool = False,
    image_size_px: int = 224,
    drop_path: float = 0.0,
    dropout: float = 0.0,
    **pretrained_cfg: Any,
) -> Backbone:
    """A backbone with random weights, or with timm's or torchvision's from the network where `pretrained`.

    `name` is a variant that `list_backbones` names, with or without the tag of its weights
    (`convnext_base.fb_in22k`). `drop_path` is the rate of stochastic depth (arXiv 1603.09382), `dropout` that of the
    network's own dropout. `pretrained_cfg` overlays timm's record of where its weights are. Transformers are built
    for images of `image_size_px`; convolutional networks and `swin3d` take any size.

    Raises `ValueError` with near names for an unknown one.
    """
    family = FAMILIES[family_of(name)]
    settings: dict[str, Any] = {"pretrained": True, **pretrained_cfg} if pretrained else {}
    model = family.build(name, image_size_px=image_size_px, drop_rate=dropout, drop_path_rate=drop_path, **settings)
    return Backbone(name, model)
