"""Fusions: how the features of two backbones become one vector.

`concat`, `add` and `attention` read the pooled vectors; `bilinear` and `cross_attention` read the maps, too, which
still say where in the image a feature is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aerofuse.backbones.backbone import Backbone, Features

FusionMethod = Literal["concat", "add", "attention", "bilinear", "cross_attention"]


@dataclass(frozen=True)
class BranchSize:
    """The length of a branch's vector, and the number of channels of its map."""

    pooled: int
    map: int

    @classmethod
    def of(cls, backbone: Backbone) -> BranchSize:
        """Return the sizes of what a backbone gives."""
        return cls(backbone.num_features, backbone.map_channels)


class Fusion(nn.Module, ABC):
    """Fuse the features of two branches to one vector `[B, num_features]`.

    A branch gives a vector `[B, D]`, and a map `[B, C, H, W]` where `reads_maps`. The maps may differ in size.
    """

    reads_maps: ClassVar[bool] = False
    num_features: int

    @abstractmethod
    def forward(self, cnn: Features, transformer: Features) -> Tensor:
        """Return the fused vector."""


class ConcatFusion(Fusion):
    """Concatenate both vectors: `d_cnn + d_trf` features."""

    def __init__(self, cnn: BranchSize, transformer: BranchSize) -> None:
        super().__init__()
        self.num_features = cnn.pooled + transformer.pooled

    def forward(self, cnn: Features, transformer: Features) -> Tensor:
        return torch.cat([cnn.pooled, transformer.pooled], dim=-1)


class AddFusion(Fusion):
    """Add both vectors: `d_cnn` features. Where the sizes differ, the transformer's side is projected first."""

    def __init__(self, cnn: BranchSize, transformer: BranchSize) -> None:
        super().__init__()
        self.num_features = cnn.pooled
        same = cnn.pooled == transformer.pooled
        self.projection = nn.Identity() if same else nn.Linear(transformer.pooled, cnn.pooled)

    def forward(self, cnn: Features, transformer: Features) -> Tensor:
        projected: Tensor = self.projection(transformer.pooled)
        return cnn.pooled + projected


class AttentionFusion(Fusion):
    """Weigh the branches per sample, and project the weighted sum to `d_cnn` features.

    Both sides are projected to `hidden_dim`; a small MLP reads both, and a softmax gives the two weights.
    `branch_weights` returns them for inspection.
    """

    def __init__(self, cnn: BranchSize, transformer: BranchSize, hidden_dim: int = 256) -> None:
        super().__init__()
        self.num_features = cnn.pooled
        self.cnn_projection = nn.Linear(cnn.pooled, hidden_dim)
        self.transformer_projection = nn.Linear(transformer.pooled, hidden_dim)
        self.scorer = nn.Sequential(
            nn.Linear(2 * hidden_dim, hidden_dim // 4), nn.GELU(), nn.Linear(hidden_dim // 4, 2)
        )
        self.output_projection = nn.Linear(hidden_dim, cnn.pooled)

    def branch_weights(self, cnn: Features, transformer: Features) -> Tensor:
        """Return the weights of the CNN and of the transformer, `[B, 2]`; each row adds up to 1."""
        return self._project_and_weigh(cnn, transformer)[1]

    def forward(self, cnn: Features, transformer: Features) -> Tensor:
        branches, weights = self._project_and_weigh(cnn, transformer)
        fused: Tensor = self.output_projection((branches * weights.unsqueeze(-1)).sum(dim=1))
        return fused

    def _project_and_weigh(self, cnn: Features, transformer: Features) -> tuple[Tensor, Tensor]:
        """Return the projected branches `[B, 2, hidden_dim]` and their weights `[B, 2]`."""
        branches = torch.stack(
            [self.cnn_projection(cnn.pooled), self.transformer_projection(transformer.pooled)], dim=1
        )
        return branches, self.scorer(branches.flatten(1)).softmax(dim=-1)


class BilinearFusion(Fusion):
    """Add products of both maps, place by place, to both vectors: `d_cnn + d_trf + rank` features.

    Bilinear pooling (arXiv 1504.07889) in low rank (arXiv 1610.04325): both maps are projected to `rank` channels and
    multiplied, the products averaged over the places, and scaled by signed square root and length. The coarser map is
    interpolated to the finer one's places.
    """

    reads_maps = True

    def __init__(self, cnn: BranchSize, transformer: BranchSize, rank: int = 256) -> None:
        super().__init__()
        self.num_features = cnn.pooled + transformer.pooled + rank
        self.cnn_projection = _TokenProjection(cnn.map, rank)
        self.transformer_projection = _TokenProjection(transformer.map, rank)
        # A vector of length 1 would hardly be seen beside those of the branches.
        self.scale = nn.Parameter(torch.tensor(rank**0.5))

    def forward(self, cnn: Features, transformer: Features) -> Tensor:
        maps = _read_map(cnn), _read_map(transformer)
        size = max((tuple(one.shape[-2:]) for one in maps), key=lambda sides: sides[0] * sides[1])
        cnn_tokens, transformer_tokens = (
            _tokens(one if one.shape[-2:] == size else F.interpolate(one, size, mode="bilinear")) for one in maps
        )
        product = (self.cnn_projection(cnn_tokens) * self.transformer_projection(transformer_tokens)).mean(dim=1)
        # The gradient of a square root is infinite at zero.
        rooted = product.sign() * ((product.abs() + _EPSILON).sqrt() - _EPSILON**0.5)
        return torch.cat([cnn.pooled, transformer.pooled, self.scale * F.normalize(rooted, dim=-1)], dim=-1)


class CrossAttentionFusion(Fusion):
    """Let the tokens of each branch attend to those of the other: `d_cnn + d_trf + 2 * hidden_dim` features.

    Each map is a sequence of tokens, projected to `hidden_dim`. In each direction one block of cross-attention
    (arXiv 2103.14899 joins two branches so) reads the other branch; its tokens are averaged and follow both vectors.
    """

    reads_maps = True

    def __init__(self, cnn: BranchSize, transformer: BranchSize, hidden_dim: int = 128, num_heads: int = 4) -> None:
        super().__init__()
        self.num_features = cnn.pooled + transformer.pooled + 2 * hidden_dim
        self.cnn_projection = _TokenProjection(cnn.map, hidden_dim)
        self.transformer_projection = _TokenProjection(transformer.map, hidden_dim)
        self.cnn_reads = nn.MultiheadAttention(hidden_dim, num_heads, batch_first=True)
        self.transformer_reads = nn.MultiheadAttention(hidden_dim, num_heads, batch_first=True)
        self.norm = nn.LayerNorm(2 * hidden_dim)

    def forward(self, cnn: Features, transformer: Features) -> Tensor:
        cnn_tokens = self.cnn_projection(_tokens(_read_map(cnn)))
        transformer_tokens = self.transformer_projection(_tokens(_read_map(transformer)))
        from_transformer, _ = self.cnn_reads(cnn_tokens, transformer_tokens, transformer_tokens, need_weights=False)
        from_cnn, _ = self.transformer_reads(transformer_tokens, cnn_tokens, cnn_tokens, need_weights=False)
        joined = torch.cat(
            [(cnn_tokens + from_transformer).mean(dim=1), (transformer_tokens + from_cnn).mean(dim=1)], dim=-1
        )
        return torch.cat([cnn.pooled, transformer.pooled, self.norm(joined)], dim=-1)


class _TokenProjection(nn.Sequential):
    """Tokens `[B, N, C]`, standardised each, to `[B, N, dim]`: what a backbone gives before its head has any scale."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__(nn.LayerNorm(channels), nn.Linear(channels, dim))


_EPSILON = 1e-4


def _read_map(features: Features) -> Tensor:
    assert features.map is not None, "a backbone gives its map after `give_map`"
    return features.map


def _tokens(feature_map: Tensor) -> Tensor:
    """Return `[B, H * W, C]` of `[B, C, H, W]`."""
    return feature_map.flatten(2).transpose(1, 2)


FUSIONS: Mapping[str, type[Fusion]] = {
    "concat": ConcatFusion,
    "add": AddFusion,
    "attention": AttentionFusion,
    "bilinear": BilinearFusion,
    "cross_attention": CrossAttentionFusion,
}


def create_fusion(method: str, cnn: BranchSize, transformer: BranchSize) -> Fusion:
    """Return the fusion named `method`. Raises `ValueError` naming the known ones."""
    check_fusion_method(method)
    return FUSIONS[method](cnn, transformer)


def check_fusion_method(method: str) -> None:
    """Raise `ValueError` naming the known ones where there is no such method."""
    if method not in FUSIONS:
        raise ValueError(f"fusion_method {method!r} is not known; there are {', '.join(FUSIONS)}")
