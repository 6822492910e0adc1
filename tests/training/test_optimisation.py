from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from aerofuse.backbones.backbone import create_backbone
from aerofuse.training.loop import make_optimizer, make_schedule


def test_only_matrices_are_decayed_and_every_learning_parameter_is_there_once() -> None:
    model = create_backbone("swin_thin", image_size_px=96)
    frozen = next(model.parameters())
    frozen.requires_grad_(False)
    optimizer = make_optimizer(model, 1e-3, 0.05)
    decay_of = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        if parameter is frozen:
            assert id(parameter) not in decay_of
            continue
        plain = "bias" in name or "norm" in name
        assert decay_of[id(parameter)] == (0.0 if plain else 0.05), name


def test_the_rate_rises_linearly_then_falls_to_zero_as_a_cosine() -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=2.0)
    schedule = make_schedule(optimizer, total_steps=110, warmup_fraction=10 / 110)
    rates = []
    for _ in range(111):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[:10] == pytest.approx([2.0 * (step + 1) / 11 for step in range(10)])
    assert max(rates) == rates[10] == pytest.approx(2.0)
    assert rates[60] == pytest.approx(1.0)
    assert rates[110] == pytest.approx(0.0)
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates[10:]))
