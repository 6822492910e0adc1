"""How large everything is that is measured: in full for a GPU, small for a rehearsal on a CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
import yaml

from aerofuse.backbones.families import FAMILIES
from aerofuse.models.architecture import EXAMPLE_CLASSES, HybridModel, hybrid_architecture
from tools.benchmarks.subjects import Subject, middle_variant


@dataclass(frozen=True)
class EvidenceSizes:
    """`networks` are measured in bf16 at `batch`, and `offloaded_networks` once more with host memory; the hybrid of
    `recipe`, as in params.yaml, at batches of its own.

    Medians are over so many `rounds`, and steps under plans are timed for `timing_s` at least. `compiler` is a
    backend of `torch.compile`.
    """

    device: torch.device
    networks: tuple[str, ...]
    offloaded_networks: tuple[str, ...]
    batch: int
    image_size_px: int
    recipe: Mapping[str, Any]
    hybrid_batch: int
    throughput_batch: int
    monet_network: str
    monet_batch: int
    rounds: int
    timing_s: int
    compiler: str

    @classmethod
    def full(cls, device: torch.device) -> Self:
        """Return the sizes that are published; reads params.yaml in the working folder."""
        recipe = read_recipe("base")
        return cls(
            device,
            networks=tuple(map(middle_variant, FAMILIES)),
            offloaded_networks=tuple(map(middle_variant, ("resnet", "vit", "convnext"))),
            batch=64,
            image_size_px=recipe["image_size"],
            recipe=recipe,
            hybrid_batch=recipe["train_stage_c"]["batch_size"],
            throughput_batch=64,
            monet_network="resnet50",
            monet_batch=184,
            rounds=5,
            timing_s=4,
            compiler="inductor",
        )

    @classmethod
    def rehearsal(cls, device: torch.device) -> Self:
        """Return the smallest networks on the smallest images."""
        return cls(
            device,
            networks=("resnet18", "convnext_thin"),
            offloaded_networks=("convnext_thin",),
            batch=2,
            image_size_px=64,
            recipe=read_recipe("quick"),
            hybrid_batch=2,
            throughput_batch=2,
            monet_network="convnext_thin",
            monet_batch=32,
            rounds=1,
            timing_s=0,
            compiler="eager",
        )

    def build_hybrid(self) -> HybridModel:
        """Return the hybrid of the recipe with random weights, on the device and in training mode."""
        model = hybrid_architecture(
            self.recipe["backbones"]["cnn"],
            self.recipe["backbones"]["transformer"],
            self.recipe["fusion_method"],
            self.recipe["head_dropout"]["hybrid"],
            self.recipe["backbones"]["drop_path"],
            self.image_size_px,
        ).build(EXAMPLE_CLASSES)
        assert isinstance(model, HybridModel)
        return model.to(self.device).train()

    def hybrid_subject(self) -> Subject:
        """Return the hybrid as the benchmark's measurements take it."""
        name, shape = f"hybrid of {self.recipe['name']}", (3, self.image_size_px, self.image_size_px)
        return Subject("hybrid", name, 1, self.build_hybrid(), shape, lambda _size: self.hybrid_subject(), torch.uint8)


def read_recipe(name: str) -> dict[str, Any]:
    """Return a recipe of params.yaml with its name and the fusion method, unchecked: pydantic is not there."""
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    return {**params["recipes"][name], "name": name, "fusion_method": params["fusion_method"]}
