"""Ten vision networks of Hugging Face's `transformers`, made small, with random weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import transformers
from torch import nn

_SIZE_PX = 64


@dataclass(frozen=True)
class _Config:
    """The names of a configuration and of a network in `transformers`, and what makes the network small."""

    config: str
    network: str
    settings: Mapping[str, Any] = field(default_factory=dict)


_TRANSFORMER = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": _SIZE_PX,
    "patch_size": 8,
    "attention_probs_dropout_prob": 0.1,
    "hidden_dropout_prob": 0.1,
}
_WINDOWS = {"embed_dim": 16, "depths": [2, 2, 2], "num_heads": [2, 4, 8], "window_size": 4, "image_size": _SIZE_PX}
_STAGES = {"hidden_sizes": [16, 32, 64, 96], "depths": [2, 2, 2, 2], "drop_path_rate": 0.1}
_PYRAMID = {"hidden_sizes": [16, 32, 64, 96], "num_attention_heads": [1, 2, 4, 8], "drop_path_rate": 0.1}

CONFIGS: Mapping[str, _Config] = {
    "vit": _Config("ViTConfig", "ViTForImageClassification", _TRANSFORMER),
    "beit": _Config("BeitConfig", "BeitForImageClassification", _TRANSFORMER | {"use_relative_position_bias": True}),
    "swin": _Config("SwinConfig", "SwinForImageClassification", _WINDOWS),
    "swinv2": _Config("Swinv2Config", "Swinv2ForImageClassification", _WINDOWS),
    "convnext": _Config("ConvNextConfig", "ConvNextForImageClassification", _STAGES),
    "dinov2": _Config("Dinov2Config", "Dinov2ForImageClassification", _TRANSFORMER | {"drop_path_rate": 0.1}),
    "segformer": _Config("SegformerConfig", "SegformerForImageClassification", _PYRAMID),
    "clip_vision": _Config("CLIPVisionConfig", "CLIPVisionModel", _TRANSFORMER | {"attention_dropout": 0.1}),
    "mobilevit": _Config("MobileViTConfig", "MobileViTForImageClassification", {"image_size": _SIZE_PX}),
    "pvt": _Config(
        "PvtConfig",
        "PvtForImageClassification",
        {"hidden_sizes": [16, 32, 64, 96], "num_attention_heads": [1, 2, 4, 8], "image_size": _SIZE_PX},
    ),
}


def build_hugging_face(name: str) -> tuple[nn.Module, int]:
    """Return a network, and the height and width of its images in pixels."""
    chosen = CONFIGS[name]
    config = getattr(transformers, chosen.config)(**chosen.settings)
    network: nn.Module = getattr(transformers, chosen.network)(config)
    return network, _SIZE_PX
