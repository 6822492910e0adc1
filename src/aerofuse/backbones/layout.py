"""How a family lays out its features in space, and how to read them as a grid `[B, C, H, W]`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aerofuse.backbones.families import FAMILIES


class Layout:
    """A family's layout of features: `[B, C, H, W]`, Swin `[B, H, W, C]`, ViT `[B, N, C]`, class token first.

    Those of other networks are told by where the number of their features stands.
    """

    def __init__(self, family: str, model: nn.Module) -> None:
        self._family, self._num_features = family, int(getattr(model, "num_features", 0))
        self._prefix = int(getattr(model, "num_prefix_tokens", 0))

    def cells(self, features: Tensor) -> int:
        """Return the side of the grid in cells, 0 where there is no square grid."""
        if features.ndim == 3:
            side = round((features.shape[1] - self._prefix) ** 0.5)
            return side if side**2 == features.shape[1] - self._prefix else 0
        if features.ndim != 4:
            return 0
        height, width = features.shape[1:3] if self._is_channels_last(features.shape) else features.shape[2:4]
        return int(height) if height == width else 0

    def to_grid(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features as `[B, C, H, W]`, and the class tokens, which are no place of the image."""
        if features.ndim == 3:
            side = self.cells(features)
            places = features[:, self._prefix :].transpose(1, 2).unflatten(2, (side, side))
            return places, features[:, : self._prefix]
        grid = features.permute(0, 3, 1, 2) if self._is_channels_last(features.shape) else features
        return grid, features[:, :0]

    def from_grid(self, grid: Tensor, rest: Tensor) -> Tensor:
        """Return the features in the family's own layout."""
        if rest.ndim == 3:
            return torch.cat([rest, grid.flatten(2).transpose(1, 2)], dim=1)
        channels_last = grid.permute(0, 2, 3, 1)
        return channels_last if self._is_channels_last(channels_last.shape) else grid

    def _is_channels_last(self, shape: torch.Size) -> bool:
        if self._family in FAMILIES:
            return self._family == "swin"
        return shape[-1] == self._num_features != shape[1]
