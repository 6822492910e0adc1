"""Blocks of libraries that run as two units, attention and MLP, so that a plan may treat them differently.

The composition of the pieces is the block's own forward pass. They stand in for it where the class and its forward pass
are the library's own and the block is called with one tensor. Whatever hangs on the block or on its parts is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor, nn

Half = Callable[[nn.Module, Tensor], Tensor]


def _residual(*parts: str) -> Half:
    """Return the half of a block that runs these parts of it, one after the other, with a connection past them."""

    def run(block: nn.Module, x: Tensor) -> Tensor:
        y = x
        for part in parts:
            y = getattr(block, part)(y)
        return x + y

    return run


def _on_rows(half: Half) -> Half:
    """Return the same half for `[B, H, W, C]`, run on `[B, H * W, C]`."""

    def run(block: nn.Module, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        return half(block, x.reshape(batch, -1, channels)).reshape(batch, height, width, channels)

    return run


_VIT_MLP = _residual("norm2", "mlp", "ls2", "drop_path2")
_VIDEO_SWIN = _residual("norm1", "attn", "stochastic_depth"), _residual("norm2", "mlp", "stochastic_depth")
# By the full name of a class, so that no library is imported for it: attention, then MLP.
_HALVES: Mapping[str, tuple[Half, Half]] = {
    "timm.models.vision_transformer.Block": (_residual("norm1", "attn", "ls1", "drop_path1"), _VIT_MLP),
    "timm.models.swin_transformer.SwinTransformerBlock": (
        _residual("norm1", "_attn", "drop_path1"),
        _on_rows(_residual("norm2", "mlp", "drop_path2")),
    ),
    "timm.models.maxxvit.PartitionAttentionCl": (_residual("norm1", "_partition_attn", "ls1", "drop_path1"), _VIT_MLP),
    "torchvision.models.swin_transformer.SwinTransformerBlock": _VIDEO_SWIN,
    "torchvision.models.video.swin_transformer.SwinTransformerBlock": _VIDEO_SWIN,
}


def pieces_of(module: nn.Module) -> Mapping[str, Callable[[Tensor], Tensor]]:
    """Return the functions whose composition is the forward pass of a block, by name; none for other modules."""
    halves = _HALVES.get(f"{type(module).__module__}.{type(module).__qualname__}", ())
    return {name: partial(half, module) for name, half in zip(("attention", "mlp"), halves, strict=False)}
