"""The contract of every backbone: features from images."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from torch import Tensor, nn

from aerofuse.backbones.families import FAMILIES, TIMM_WEIGHT_SETTINGS, family_named, family_of
from aerofuse.backbones.layout import Layout
from aerofuse.planning.checkpointed import Checkpointed


class Features(NamedTuple):
    """What a backbone finds in images: one vector each, `[B, D]`, and the map `[B, C, H, W]` that it was pooled from.

    There is a map only where the backbone was asked for it.
    """

    pooled: Tensor
    map: Tensor | None = None


class Backbone(Checkpointed):
    """Images `[B, 3, H, W]`, or for `swin3d` clips `[B, 3, T, H, W]`, to features `[B, num_features]`.

    The network itself is `model`, under its own names; its own forward pass runs. Gradient checkpointing changes
    neither outputs nor gradients nor buffers. It acts in training mode with gradients on, and is off by default.
    """

    def __init__(self, variant: str, model: nn.Module) -> None:
        """Wrap `model`, built as `variant`. Raises `ValueError` for an unknown variant."""
        super().__init__()
        self.variant = variant
        self.family = family_of(variant)
        self.model = model
        self._gives_map = False

    @property
    def num_features(self) -> int:
        """Return the length of the vector per image."""
        # Where a hidden layer stands between pooling and classifier, the features are its outputs.
        return int(getattr(self.model, "head_hidden_size", None) or self.model.num_features)  # type: ignore[arg-type]

    @property
    def map_channels(self) -> int:
        """Return the number of channels of the map."""
        return int(self.model.num_features)  # type: ignore[arg-type]

    def give_map(self, gives_map: bool = True) -> None:
        """Return `Features` with a map from now on, and no longer the vectors alone.

        Raises `ValueError` for a backbone that takes clips.
        """
        if gives_map and family_named(self.family).input_dims != 4:
            raise ValueError(f"{self.variant} has no map: it takes clips")
        if gives_map and not hasattr(self.model, "forward_head"):
            raise ValueError(f"{self.variant} has no map: its features and its head are one")
        self._gives_map = gives_map

    def forward(self, images: Tensor) -> Tensor | Features:
        """Return the vectors `[B, num_features]`, or with `give_map` these and the map.

        Raises `ValueError` for inputs of another number of dimensions.
        """
        self._check(images)
        if not self._gives_map:
            vectors: Tensor = self.model(images)
            return vectors
        found = self.model.forward_features(images)  # type: ignore[operator]
        return Features(self.model.forward_head(found), Layout(self.family, self.model).to_grid(found)[0])  # type: ignore[operator]

    def _check(self, images: Tensor) -> None:
        wanted = family_named(self.family).input_dims
        if images.ndim != wanted:
            shape = "clips [B, 3, T, H, W]" if wanted == 5 else "images [B, 3, H, W]"
            raise ValueError(f"{self.variant} takes {shape}, not {list(images.shape)}")


_SETTINGS = ("pretrained", "image_size_px", "drop_path", "dropout")


def _check_settings(given: Iterable[str], allowed: Collection[str]) -> None:
    for name in given:
        if name in allowed:
            continue
        if name in TIMM_WEIGHT_SETTINGS:
            raise ValueError(f"{name!r} is about pretrained weights of timm; without them it means nothing")
        near = difflib.get_close_matches(name, [*_SETTINGS, *allowed], n=3)
        hint = f"near names: {', '.join(near)}" if near else f"there are {', '.join(_SETTINGS)}"
        raise ValueError(f"create_backbone has no setting {name!r}; {hint}")


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
    """Return a backbone with random weights, or with timm's or torchvision's from the network where `pretrained`.

    `name` is a variant that `list_backbones` names, or any other network of timm, with or without the tag of its
    weights (`convnext_base.fb_in22k`). `drop_path` is the rate of stochastic depth (arXiv 1603.09382), `dropout` that
    of the network's own dropout. `pretrained_cfg` overlays timm's record of where its weights are. Transformers are
    built for images of `image_size_px`; convolutional networks and `swin3d` take any size.

    Raises `ValueError` with near names for an unknown variant, and for a setting that means nothing here.
    """
    family = family_named(family_of(name))
    _check_settings(pretrained_cfg, family.weight_settings if pretrained else ())
    settings: dict[str, Any] = {"pretrained": True, **pretrained_cfg} if pretrained else {}
    model = family.build(name, image_size_px=image_size_px, drop_rate=dropout, drop_path_rate=drop_path, **settings)
    return Backbone(name, model)
