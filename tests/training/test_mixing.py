"""Photos and labels are mixed in the same share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from aerofuse.training.mixing import mix
from aerofuse.training.params import MixingParams

NUM_CLASSES = {"type": 3, "airline": 2}
TARGETS = {
    "type": torch.tensor([0, 1, -1, 2]),
    "airline": torch.tensor([1, 1, 1, 1]),
    "clarity": torch.tensor([0.1, 0.2, 0.3, 0.4]),
}


def _images() -> Tensor:
    """Each of one colour, so that a pixel tells whose it is."""
    return torch.tensor([0, 80, 160, 240], dtype=torch.uint8)[:, None, None, None].expand(4, 3, 16, 16).contiguous()


@pytest.mark.parametrize("way", ["mixup", "cutmix"])
def test_labels_have_the_share_of_the_pixels(way: str) -> None:
    np.random.seed(0)
    for _ in range(10):
        images, targets = mix(
            (_images(), TARGETS), MixingParams(**{"probability": 1, "mixup": 0, "cutmix": 0, way: 1.0}), NUM_CLASSES
        )
        assert images.dtype == torch.uint8
        # The first photo is black and its partner 240: the mean says how much is the partner's.
        partners = images[0].float().mean() / 240
        torch.testing.assert_close(
            targets["type"][0], torch.stack([1 - partners, torch.tensor(0.0), partners]), atol=0.01, rtol=0
        )
        assert targets["type"][1].sum() == pytest.approx(float(1 - images[1].float().sub(80).mean() / 80), abs=0.01)
        torch.testing.assert_close(targets["airline"], torch.tensor([[0.0, 1.0]] * 4))
        assert targets["clarity"].isnan().all()
    if way == "cutmix":
        assert set(images[0].unique().tolist()) <= {0, 240}


def test_as_often_as_asked_for() -> None:
    np.random.seed(0)
    params = MixingParams(probability=0.3, mixup=0.2, cutmix=1.0)
    batch = (_images(), TARGETS)
    mixed = sum(mix(batch, params, NUM_CLASSES) is not batch for _ in range(500))
    assert 110 < mixed < 190
    assert mix(batch, MixingParams(probability=1.0, mixup=0.0, cutmix=0.0), NUM_CLASSES) is batch
