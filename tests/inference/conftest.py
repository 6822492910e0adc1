"""A hybrid that really tells types apart, in seconds: bundled weights, and a type head fitted to their features."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from aerofuse.backbones.weights import BUNDLED_FOLDER
from aerofuse.common.files import load_into, load_weights
from aerofuse.data.dataset import PreparedSplit
from aerofuse.data.labels import ClassLists
from aerofuse.models.architecture import HybridModel, hybrid_architecture
from tests.imports import ROOT


@pytest.fixture(scope="session")
def photos(prepared_folder: Path, classes: ClassLists) -> Tensor:
    """Training photos, uint8 `[N, 3, 96, 96]`."""
    split = PreparedSplit(prepared_folder / "train.arrow", classes)
    return torch.stack([split[index][0] for index in range(len(split))])


@pytest.fixture(scope="session")
def hybrid(prepared_folder: Path, classes: ClassLists, photos: Tensor) -> HybridModel:
    torch.manual_seed(0)
    model = hybrid_architecture("convnext_thin", "swin_thin", "concat", 0.1, 0.0, 96).build(classes).eval()
    assert isinstance(model, HybridModel)
    for name, backbone in model.backbones().items():
        weights = load_weights(ROOT / BUNDLED_FOLDER / f"{backbone.variant}.safetensors")
        load_into(backbone.model, {key: tensor.float() for key, tensor in weights.items()}, name)
    split = PreparedSplit(prepared_folder / "train.arrow", classes)
    types = torch.tensor([int(split[index][1]["type"]) for index in range(len(split))])
    with torch.no_grad():
        features = model.get_features(photos)
    head = model.heads.get_submodule("type_head")
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(features), types).backward()
        optimizer.step()
    model.zero_grad()
    assert (model(photos)["type"].argmax(dim=1) == types).float().mean() > 0.9
    return model
