"""Blocks of libraries that run as two units, attention and MLP, so that a plan may treat them differently.

The composition of the pieces is the block's own forward pass. They stand in for it where the class and its forward pass
are the library's own and the block is called with one tensor. Whatever hangs on the block or on its parts is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

# The classes of libraries say little of their attributes to a type checker.
Block = Any
Pieces = Mapping[str, Callable[[Tensor], Tensor]]


def _vit_attention(block: Block, x: Tensor) -> Tensor:
    output: Tensor = x + block.drop_path1(block.ls1(block.attn(block.norm1(x))))
    return output


def _vit_mlp(block: Block, x: Tensor) -> Tensor:
    output: Tensor = x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))
    return output


def _swin_attention(block: Block, x: Tensor) -> Tensor:
    output: Tensor = x + block.drop_path1(block._attn(block.norm1(x)))
    return output


def _swin_mlp(block: Block, x: Tensor) -> Tensor:
    batch, height, width, channels = x.shape
    x = x.reshape(batch, -1, channels)
    x = x + block.drop_path2(block.mlp(block.norm2(x)))
    return x.reshape(batch, height, width, channels)


def _swin3d_attention(block: Block, x: Tensor) -> Tensor:
    output: Tensor = x + block.stochastic_depth(block.attn(block.norm1(x)))
    return output


def _swin3d_mlp(block: Block, x: Tensor) -> Tensor:
    output: Tensor = x + block.stochastic_depth(block.mlp(block.norm2(x)))
    return output


def _partition_attention(block: Block, x: Tensor) -> Tensor:
    output: Tensor = x + block.drop_path1(block.ls1(block._partition_attn(block.norm1(x))))
    return output


# By the full name of a class, so that no library is imported for it: attention, then MLP.
_HALVES: Mapping[str, tuple[Callable[[Block, Tensor], Tensor], Callable[[Block, Tensor], Tensor]]] = {
    "timm.models.vision_transformer.Block": (_vit_attention, _vit_mlp),
    "timm.models.swin_transformer.SwinTransformerBlock": (_swin_attention, _swin_mlp),
    "timm.models.maxxvit.PartitionAttentionCl": (_partition_attention, _vit_mlp),
    "torchvision.models.swin_transformer.SwinTransformerBlock": (_swin3d_attention, _swin3d_mlp),
    "torchvision.models.video.swin_transformer.SwinTransformerBlock": (_swin3d_attention, _swin3d_mlp),
}


def pieces_of(module: nn.Module) -> Pieces:
    """Return the functions whose composition is the forward pass of a block, by name; none for other modules."""
    halves = _HALVES.get(f"{type(module).__module__}.{type(module).__qualname__}", ())
    return {name: partial(half, module) for name, half in zip(("attention", "mlp"), halves, strict=False)}
