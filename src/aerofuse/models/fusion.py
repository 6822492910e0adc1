"""Fusions: how the features of two backbones become one vector."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

FusionMethod = Literal["concat", "add", "attention"]


class Fusion(nn.Module, ABC):
    """Fuse features `[B, d_cnn]` and `[B, d_trf]` to one vector `[B, num_features]`."""

    num_features: int

    @abstractmethod
    def forward(self, cnn_features: Tensor, transformer_features: Tensor) -> Tensor:
        """Return the fused vector."""


class ConcatFusion(Fusion):
    """Concatenate both vectors: `d_cnn + d_trf` features."""

    def __init__(self, cnn_dim: int, transformer_dim: int) -> None:
        super().__init__()
        self.num_features = cnn_dim + transformer_dim

    def forward(self, cnn_features: Tensor, transformer_features: Tensor) -> Tensor:
        return torch.cat([cnn_features, transformer_features], dim=-1)


class AddFusion(Fusion):
    """Add both vectors: `d_cnn` features. Where the sizes differ, the transformer's side is projected first."""

    def __init__(self, cnn_dim: int, transformer_dim: int) -> None:
        super().__init__()
        self.num_features = cnn_dim
        same = cnn_dim == transformer_dim
        self.projection = nn.Identity() if same else nn.Linear(transformer_dim, cnn_dim)

    def forward(self, cnn_features: Tensor, transformer_features: Tensor) -> Tensor:
        projected: Tensor = self.projection(transformer_features)
        return cnn_features + projected


class AttentionFusion(Fusion):
    """Weigh the branches per sample, and project the weighted sum to `d_cnn` features.

    Both sides are projected to `hidden_dim`; a small MLP reads both, and a softmax gives the two weights.
    `branch_weights` returns them for inspection.
    """

    def __init__(self, cnn_dim: int, transformer_dim: int, hidden_dim: int = 256) -> None:
        super().__init__()
        self.num_features = cnn_dim
        self.cnn_projection = nn.Linear(cnn_dim, hidden_dim)
        self.transformer_projection = nn.Linear(transformer_dim, hidden_dim)
        self.scorer = nn.Sequential(
            nn.Linear(2 * hidden_dim, hidden_dim // 4), nn.GELU(), nn.Linear(hidden_dim // 4, 2)
        )
        self.output_projection = nn.Linear(hidden_dim, cnn_dim)

    def branch_weights(self, cnn_features: Tensor, transformer_features: Tensor) -> Tensor:
        """Return the weights of the CNN and of the transformer, `[B, 2]`; each row adds up to 1."""
        return self._project_and_weigh(cnn_features, transformer_features)[1]

    def forward(self, cnn_features: Tensor, transformer_features: Tensor) -> Tensor:
        branches, weights = self._project_and_weigh(cnn_features, transformer_features)
        fused: Tensor = self.output_projection((branches * weights.unsqueeze(-1)).sum(dim=1))
        return fused

    def _project_and_weigh(self, cnn_features: Tensor, transformer_features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the projected branches `[B, 2, hidden_dim]` and their weights `[B, 2]`."""
        branches = torch.stack(
            [self.cnn_projection(cnn_features), self.transformer_projection(transformer_features)], dim=1
        )
        return branches, self.scorer(branches.flatten(1)).softmax(dim=-1)


FUSIONS: dict[FusionMethod, Callable[[int, int], Fusion]] = {
    "concat": ConcatFusion,
    "add": AddFusion,
    "attention": AttentionFusion,
}


def create_fusion(method: str, cnn_dim: int, transformer_dim: int) -> Fusion:
    """Return the fusion named `method`. Raises `ValueError` naming the known ones."""
    for known in get_args(FusionMethod):
        if method == known:
            return FUSIONS[known](cnn_dim, transformer_dim)
    raise ValueError(f"fusion_method {method!r} is not known; there are {', '.join(FUSIONS)}")
