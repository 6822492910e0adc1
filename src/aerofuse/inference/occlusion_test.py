"""Whether maps name the places that matter: cover those, and see whether the answer goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from aerofuse.inference.explain import explain
from aerofuse.models.aircraft_model import AircraftModel

_COVERED_SHARE = 0.25


@dataclass(frozen=True)
class CoveringEffect:
    """How far the logit of the predicted type, above the mean of all types, falls on average.

    `hottest`: when the quarter of the places that the map of the branch names most is covered with the photo's mean
    colour; `coldest`: the quarter that it names least. A map that says nothing has the two alike.
    """

    hottest: float
    coldest: float


def covering_effects(model: AircraftModel, images: Sequence[Tensor]) -> dict[str, CoveringEffect]:
    """For the map of every branch, over `images`, uint8 `[3, H, W]` each; the model is in evaluation mode.

    Raises `ValueError` for none.
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
        branch: CoveringEffect(*(sum(each) / len(images) for each in zip(*pairs, strict=True)))
        for branch, pairs in falls.items()
    }


def _cover(image: Tensor, heat: Tensor) -> Tensor:
    """`image` with its mean colour where `heat` `[H, W]` is highest; of places alike the first ones."""
    count = int(_COVERED_SHARE * heat.numel())
    places = heat.flatten().argsort(descending=True, stable=True)[:count]
    covered = image.flatten(1).clone()
    covered[:, places] = image.flatten(1).float().mean(dim=1, keepdim=True).round().to(torch.uint8)
    return covered.view_as(image)


def _margins(model: AircraftModel, images: Tensor, class_index: int) -> list[float]:
    with torch.no_grad():
        logits = model(images.to(next(model.parameters()).device))["type"]
    margins: list[float] = (logits[:, class_index] - logits.mean(dim=1)).tolist()
    return margins
