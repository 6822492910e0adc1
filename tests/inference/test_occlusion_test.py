from __future__ import annotations

import pytest
import torch
from torch import Tensor

from aerofuse.inference import occlusion_test
from aerofuse.inference.explain import explain
from aerofuse.inference.occlusion_test import occlusion_effects
from aerofuse.models.architecture import HybridModel


def test_the_maps_name_what_matters(hybrid: HybridModel, photos: Tensor) -> None:
    effects = occlusion_effects(hybrid, list(photos[:24]))
    assert list(effects) == ["cnn", "transformer"]
    for effect in effects.values():
        assert effect.hottest > effect.coldest + 1


def test_the_effect_is_the_fall_of_the_margin(hybrid: HybridModel, photos: Tensor) -> None:
    """With the covering done here by hand."""
    photo = photos[0]
    explanation = explain(hybrid, photo)
    heat = torch.from_numpy(explanation.maps["cnn"])
    hottest = torch.zeros(96 * 96, dtype=torch.bool)
    hottest[heat.flatten().argsort(descending=True, stable=True)[: 96 * 96 // 4]] = True
    covered = photo.clone()
    for channel in range(3):
        covered[channel].view(-1)[hottest] = int(photo[channel].float().mean().round())
    with torch.no_grad():
        logits = hybrid(torch.stack([photo, covered]))["type"]
    margins = logits[:, explanation.class_index] - logits.mean(dim=1)
    assert occlusion_effects(hybrid, [photo])["cnn"].hottest == pytest.approx(float(margins[0] - margins[1]), abs=1e-4)


@pytest.mark.slow
def test_a_map_that_says_nothing_is_found_out(
    hybrid: HybridModel, photos: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With maps of other photos, the two effects are about the same."""
    honest = occlusion_effects(hybrid, list(photos[:24]))["cnn"]
    others = iter(photos[40:64])
    monkeypatch.setattr(occlusion_test, "explain", lambda model, image: explain(model, next(others)))
    strange = occlusion_effects(hybrid, list(photos[:24]))["cnn"]
    assert strange.hottest - strange.coldest < (honest.hottest - honest.coldest) / 2


def test_no_photo(hybrid: HybridModel) -> None:
    with pytest.raises(ValueError, match="no image to cover"):
        occlusion_effects(hybrid, [])
