"""The occlusion test of explanations: cover the places that a map names, and see how far the answer falls.

The method is occlusion sensitivity (Zeiler and Fergus, 2014, arXiv 1311.2901), with the places that a map chooses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aerofuse.inference.explain import explain
from aerofuse.models.aircraft_model import AircraftModel


@dataclass(frozen=True)
class OcclusionEffect:
    """The average fall of the predicted type's logit, above the mean of all types, when a part of an image is covered.

    `hottest` is the quarter that the map of the branch names most, `coldest` the quarter that it names least; the
    cover has the image's mean colour. A map without information has two equal effects.
    """

    hottest: float
    coldest: float


def occlusion_effects(model: AircraftModel, images: Sequence[Tensor]) -> dict[str, OcclusionEffect]:
    """Test the map of every branch over `images`, uint8 `[3, H, W]` each; the model is in evaluation mode.

    Raises `ValueError` where there is no image.
    """
    if not images:
        raise ValueError("no image to cover a part of")
    falls: dict[str, list[tuple[float, float]]] = {}
    for image in images:
        explanation = explain(model, image)
        assert explanation.class_index is not None, "the type is a class"
        for branch, places in explanation.maps.items():
            heat = torch.from_numpy(places)
            covered = [image, _cover(image, heat), _cover(image, -heat)]
            before, *after = _margins(model, torch.stack(covered), explanation.class_index)
            falls.setdefault(branch, []).append((before - after[0], before - after[1]))
    return {
        branch: OcclusionEffect(*(sum(each) / len(images) for each in zip(*pairs, strict=True)))
        for branch, pairs in falls.items()
    }


def _cover(image: Tensor, heat: Tensor) -> Tensor:
    """Return `image` with its mean colour where `heat` `[H, W]` is highest; among equal places the first count."""
    places = heat.flatten().argsort(descending=True, stable=True)[: heat.numel() // 4]
    covered = image.flatten(1).clone()
    covered[:, places] = image.flatten(1).float().mean(dim=1, keepdim=True).round().to(torch.uint8)
    return covered.view_as(image)


def _margins(model: AircraftModel, images: Tensor, class_index: int) -> list[float]:
    with torch.no_grad():
        logits = model(images.to(next(model.parameters()).device))["type"]
    margins: list[float] = (logits[:, class_index] - logits.mean(dim=1)).tolist()
    return margins
