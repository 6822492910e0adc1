"""The pretrained weights of both backbones, checked, and a record of where they came from."""

from __future__ import annotations

from pathlib import Path

from aerofuse.backbones.weights import BackboneParams, WeightParams, prepare_weights
from aerofuse.common.params import load_section, load_value
from stages import run


def weights() -> None:
    prepare_weights(
        load_section(BackboneParams, "recipes.{recipe}.backbones"),
        load_section(WeightParams, "recipes.{recipe}.weights"),
        load_value(int, "recipes.{recipe}.image_size"),
        Path("models/pretrained"),
    )


if __name__ == "__main__":
    run(weights)
