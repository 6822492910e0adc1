"""Models whose every byte can be found by hand, and small ones of every kind."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from aerofuse.common.torchvision_pairing import ensure_torchvision_imports

ensure_torchvision_imports()

import timm  # noqa: E402

# One of each kind, as small as it can be: convolutions with BatchNorm, depthwise ones with squeeze-and-excitation,
# fused attention, windows with tables of position biases, LayerNorm on channels.
SMALL_BACKBONES: dict[str, tuple[int, dict[str, Any]]] = {
    "resnet18": (32, {}),
    "mobilenetv3_small_100": (32, {}),
    "vit_tiny_patch16_224": (64, {"img_size": 64, "depth": 2}),
    "swin_tiny_patch4_window7_224": (56, {"img_size": 56, "depths": (1, 2, 1)}),
    "convnext_atto": (64, {"depths": (1, 1, 2, 1)}),
}


def small_backbone(name: str, device: str = "cpu") -> tuple[nn.Module, tuple[int, int, int, int]]:
    """A model of `SMALL_BACKBONES`, and the shape of a batch for it."""
    size_px, settings = SMALL_BACKBONES[name]
    with torch.device(device):
        model = timm.create_model(name, num_classes=0, drop_path_rate=0.1, **settings)
    return model, (2, 3, size_px, size_px)


def small_net() -> nn.Sequential:
    """[16, 4] -> [16, 2], in float32."""
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


class Deep(nn.Module):
    """[B, 32] -> [B, 32] through halves of four layers, which can be checkpointed."""

    def __init__(self, checkpointed: bool = False) -> None:
        super().__init__()
        self.first = self._half()
        self.second = self._half()
        self.checkpointed = checkpointed

    @staticmethod
    def _half() -> nn.Sequential:
        return nn.Sequential(*[layer for _ in range(4) for layer in (nn.Linear(32, 32), nn.Tanh())])

    def forward(self, inputs: Tensor) -> Tensor:
        features = inputs
        for half in (self.first, self.second):
            features = checkpoint(half, features, use_reentrant=False) if self.checkpointed else half(features)
        return features
