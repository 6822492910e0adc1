"""Blocks of libraries that run as two units, attention and MLP, so that a plan may treat them differently.

The composition of the pieces is the block's own forward pass. They stand in for it where the class and its forward pass
are the library's own and the block is called with one tensor. Whatever hangs on the block or on its parts is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn


@dataclass(frozen=True)
class _Half:
    """The half of a block that runs these parts of it, one after the other, with a connection past them.

    If `on_rows`, it runs `[B, H, W, C]` as `[B, H * W, C]`.
    """

    parts: tuple[str, ...]
    on_rows: bool = False

    def __call__(self, block: nn.Module, x: Tensor) -> Tensor:
        y = rows = x.reshape(len(x), -1, x.shape[-1]) if self.on_rows else x
        for part in self.parts:
            y = getattr(block, part)(y)
        y = rows + y
        return y.reshape(x.shape) if self.on_rows else y

    def modules(self, block: nn.Module) -> tuple[nn.Module, ...]:
        """Return what it calls: the whole block where a part is a method of that."""
        parts = tuple(getattr(block, part) for part in self.parts)
        return parts if all(isinstance(part, nn.Module) for part in parts) else (block,)


def _half(*parts: str) -> _Half:
    return _Half(parts)


_VIT_MLP = _half("norm2", "mlp", "ls2", "drop_path2")
_VIDEO_SWIN = _half("norm1", "attn", "stochastic_depth"), _half("norm2", "mlp", "stochastic_depth")
# By the full name of a class, so that no library is imported for it: attention, then MLP.
_HALVES: Mapping[str, tuple[_Half, _Half]] = {
    "timm.models.vision_transformer.Block": (_half("norm1", "attn", "ls1", "drop_path1"), _VIT_MLP),
    "timm.models.swin_transformer.SwinTransformerBlock": (
        _half("norm1", "_attn", "drop_path1"),
        _Half(("norm2", "mlp", "drop_path2"), on_rows=True),
    ),
    "timm.models.maxxvit.PartitionAttentionCl": (_half("norm1", "_partition_attn", "ls1", "drop_path1"), _VIT_MLP),
    "torchvision.models.swin_transformer.SwinTransformerBlock": _VIDEO_SWIN,
    "torchvision.models.video.swin_transformer.SwinTransformerBlock": _VIDEO_SWIN,
}


def pieces_of(module: nn.Module) -> Mapping[str, Callable[[Tensor], Tensor]]:
    """Return the functions whose composition is the forward pass of a block, by name; none for other modules."""
    return {name: partial(half, module) for name, half in _halves_of(module).items()}


def modules_of_piece(module: nn.Module, name: str) -> tuple[nn.Module, ...]:
    """Return what a piece of a block runs, and of a module without pieces, whose `name` is empty, the module."""
    return _halves_of(module)[name].modules(module) if name else (module,)


def _halves_of(module: nn.Module) -> Mapping[str, _Half]:
    halves = _HALVES.get(f"{type(module).__module__}.{type(module).__qualname__}", ())
    return dict(zip(("attention", "mlp"), halves, strict=False))
