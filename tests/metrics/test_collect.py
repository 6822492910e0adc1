from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from aerofuse.metrics.collect import collect_outputs
from aerofuse.metrics.latency import measure_latency

IMAGES = torch.arange(7, dtype=torch.uint8).view(7, 1, 1, 1).expand(7, 3, 4, 4).contiguous()


class Probe(nn.Module):
    """Gives each image's own value, and notes in which mode it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Dropout(0.5)
        self.learning = nn.Linear(1, 1)
        self.seen: list[tuple[bool, bool, tuple[int, ...]]] = []

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        self.seen.append((self.training, torch.is_grad_enabled(), tuple(images.shape)))
        return {"clarity": images.double().mean(dim=(1, 2, 3))}


def collate(batch: list[tuple[Tensor, ...]]) -> tuple[Tensor, dict[str, Tensor]]:
    return torch.stack([image for image, _ in batch]), {"clarity": torch.stack([label for _, label in batch])}


def test_everything_in_order_and_the_modes_as_before() -> None:
    model = Probe().train()
    model.frozen.eval()  # as a frozen part of a model in training is
    accelerator = Accelerator(cpu=True)
    dataset = TensorDataset(IMAGES, torch.arange(7).float() / 7)
    loader = accelerator.prepare(DataLoader(dataset, batch_size=3, collate_fn=collate))
    outputs, targets = collect_outputs(accelerator.prepare(model), loader, accelerator)
    assert outputs["clarity"].tolist() == list(range(7))
    assert outputs["clarity"].dtype == torch.float32
    assert targets["clarity"].tolist() == pytest.approx([i / 7 for i in range(7)])
    assert [(training, gradients) for training, gradients, _ in model.seen] == [(False, False)] * 3
    assert model.training
    assert model.learning.training
    assert not model.frozen.training


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(ValueError, match="the split is empty"):
        collect_outputs(Probe(), [], Accelerator(cpu=True))


def test_latency_times_single_images_after_warming_up() -> None:
    model = Probe().train()
    latency = measure_latency(model, 8, torch.device("cpu"), runs=5)
    assert len(model.seen) > 5
    assert set(model.seen) == {(False, False, (1, 3, 8, 8))}
    assert 0 < latency.median_ms <= latency.p95_ms
    assert latency.device_name
    assert model.training
