"""Maps that show where a branch looks: they are what they are said to be, and they follow the aircraft."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from aerofuse.backbones.backbone import Features, create_backbone
from aerofuse.data.labels import ClassLists
from aerofuse.inference.explain import explain
from aerofuse.models.architecture import BaselineModel, HybridModel, hybrid_architecture
from aerofuse.models.fusion import FUSIONS
from aerofuse.models.heads import Heads
from tests.imports import ROOT, imported_files
from tests.models.architectures import baseline_architecture

CLASSES = ClassLists(tuple("abcdefg"), tuple("uvw"))
# The smallest of every family of images, at a size that it takes.
VARIANTS = {
    "resnet18": 96,
    "mobilenetv2_100": 96,
    "mobilenetv3_small_100": 96,
    "efficientnet_b0": 96,
    "tf_efficientnetv2_s": 96,
    "regnety_004": 96,
    "vit_tiny_patch16_224": 224,
    "swin_tiny_patch4_window7_224": 224,
    "maxvit_tiny_tf_224": 224,
    "convnext_atto": 96,
}
SHIFT_PX = 24


def shifted(photo: Tensor, down_px: int) -> Tensor:
    """The photo moved down, or up where negative, its edge repeated: the aircraft, 20 px high or so, stays on it."""
    rows = (torch.arange(photo.shape[1]) - down_px).clamp(0, photo.shape[1] - 1)
    return photo[:, rows]


def height_of(heat: npt.NDArray[np.float32]) -> float:
    """Where a map is, in pixels from the top."""
    return float((heat.sum(axis=1) * np.arange(len(heat))).sum() / heat.sum())


def test_maps_follow_the_aircraft(hybrid: HybridModel, photos: Tensor) -> None:
    moved: dict[str, list[float]] = {"cnn": [], "transformer": []}
    for photo in photos[:16]:
        up, down = (explain(hybrid, shifted(photo, by)).maps for by in (-SHIFT_PX, SHIFT_PX))
        for branch, found in moved.items():
            found.append(height_of(down[branch]) - height_of(up[branch]))
    for branch, found in moved.items():
        assert np.mean(found) > SHIFT_PX / 2, (branch, found)
        assert np.mean(np.asarray(found) > 0) > 0.8, (branch, found)


def test_the_map_of_a_mirrored_photo_is_mirrored(hybrid: HybridModel, photos: Tensor) -> None:
    for branch in ("cnn", "transformer"):
        mirrored, unmirrored = [], []
        for photo in photos[8:16]:
            there = explain(hybrid, photo, 0).maps[branch]
            back = explain(hybrid, photo.flip(2), 0).maps[branch]
            mirrored.append(np.corrcoef(there.ravel(), back[:, ::-1].ravel())[0, 1])
            unmirrored.append(np.corrcoef(there.ravel(), back.ravel())[0, 1])
        assert np.mean(mirrored) > np.mean(unmirrored) + 0.15, branch


def test_maps_are_gradient_times_feature(hybrid: HybridModel, photos: Tensor) -> None:
    """Against autograd without captum, at the input of the last block with 12 x 12 places."""
    photo = photos[0]
    found = explain(hybrid, photo, 3).maps["cnn"]
    normalised = hybrid.normalise(photo[None])
    block = hybrid.get_submodule("cnn.model.stages.1.blocks.1")
    grids: list[Tensor] = []

    def keep(_: object, inputs: tuple[Tensor]) -> Tensor:
        grids.append(inputs[0].detach().requires_grad_())
        return grids[0]

    handle = block.register_forward_pre_hook(keep)
    fused = hybrid.fusion(Features(hybrid.cnn(normalised)), Features(hybrid.transformer(normalised)))
    handle.remove()
    (grid,) = grids
    assert grid.shape[2:] == (12, 12)
    (gradient,) = torch.autograd.grad(hybrid.heads(fused)["type"][0, 3], grid)
    evidence = (gradient * grid.detach()).sum(dim=1, keepdim=True).relu()
    expected = torch.nn.functional.interpolate(evidence, (96, 96), mode="bilinear")[0, 0]
    np.testing.assert_allclose(found, expected / expected.max(), atol=1e-5)


def test_another_class_has_another_map(hybrid: HybridModel, photos: Tensor) -> None:
    predicted = explain(hybrid, photos[0])
    assert predicted.class_index == int(hybrid(photos[:1])["type"].argmax())
    again = explain(hybrid, photos[0], predicted.class_index)
    other = explain(hybrid, photos[0], (predicted.class_index + 1) % 10)
    for branch, heat in predicted.maps.items():
        assert np.array_equal(heat, again.maps[branch])
        assert not np.allclose(heat, other.maps[branch])


@pytest.mark.parametrize("method", FUSIONS)
@pytest.mark.parametrize("task", ["type", "airline", "clarity", "block"])
def test_every_fusion_and_task_has_maps_and_shares(method: str, task: str, photos: Tensor) -> None:
    torch.manual_seed(1)
    model = hybrid_architecture("convnext_thin", "swin_thin", method, 0.1, 0.0, 96).build(CLASSES)
    explanation = explain(model, photos[0], task=task)
    assert (explanation.class_index is None) == (task in {"clarity", "block"})
    assert list(explanation.maps) == ["cnn", "transformer"]
    for heat in explanation.maps.values():
        assert heat.shape == (96, 96)
        assert heat.dtype == np.float32
        assert heat.min() >= 0
        assert heat.max() == 1
    assert explanation.shares is not None
    assert list(explanation.shares.values) == ["cnn", "transformer"]
    expected = "attention weight" if method == "attention" else "gradient x input"
    assert explanation.shares.measure == expected


@pytest.mark.parametrize("method", ["concat", "add"])
def test_contributions_of_linear_fusions_add_up_to_the_logit(method: str, photos: Tensor) -> None:
    torch.manual_seed(2)
    model = hybrid_architecture("convnext_thin", "swin_thin", method, 0.1, 0.0, 96).build(CLASSES).eval()
    explanation = explain(model, photos[1], 4)
    assert explanation.shares is not None
    bias = model.get_parameter("heads.type_head.1.bias").detach()
    with torch.no_grad():
        logits = model(photos[1:2])["type"][0]
    margin = (logits[4] - logits.mean()) - (bias[4] - bias.mean())
    assert sum(explanation.shares.values.values()) == pytest.approx(float(margin), rel=1e-4)


def test_attention_weights_are_those_of_the_fusion(photos: Tensor) -> None:
    torch.manual_seed(3)
    model = hybrid_architecture("convnext_thin", "swin_thin", "attention", 0.1, 0.0, 96).build(CLASSES).eval()
    assert isinstance(model, HybridModel)
    shares = explain(model, photos[2]).shares
    with torch.no_grad():
        normalised = model.normalise(photos[2:3])
        cnn, transformer = Features(model.cnn(normalised)), Features(model.transformer(normalised))
        weights = model.fusion.branch_weights(cnn, transformer)[0]  # type: ignore[operator]
    assert shares is not None
    assert list(shares.values.values()) == pytest.approx(weights.tolist())
    assert sum(shares.values.values()) == pytest.approx(1)


def test_a_baseline_has_one_map_and_no_shares(photos: Tensor) -> None:
    torch.manual_seed(4)
    model = baseline_architecture("convnext_thin", ("type",), 0.1, 0.0, 96).build(CLASSES)
    explanation = explain(model, photos[0])
    assert list(explanation.maps) == ["cnn"]
    assert explanation.shares is None


def test_the_model_is_left_as_it_was(hybrid: HybridModel, photos: Tensor) -> None:
    model = copy.deepcopy(hybrid).train_only({"heads"}).train()
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    frozen = explain(model, photos[0], 1)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(not module._forward_hooks and not module._backward_hooks for module in model.modules())
    for branch, heat in explain(hybrid, photos[0], 1).maps.items():
        assert np.array_equal(heat, frozen.maps[branch])


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_family_has_a_map_in_two_dimensions(variant: str) -> None:
    side = VARIANTS[variant]
    torch.manual_seed(5)
    backbone = create_backbone(variant, image_size_px=side)
    model = BaselineModel(backbone, Heads(backbone.num_features, CLASSES, ("type",), 0.0))
    image = torch.randint(0, 256, (3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    heat = explain(model, image).maps["cnn"]
    assert heat.shape == (side, side)
    assert heat.max() == 1
    assert heat.std(axis=0).max() > 0.01
    assert heat.std(axis=1).max() > 0.01


@pytest.mark.parametrize(
    ("image", "class_index", "task", "message"),
    [
        (torch.zeros(3, 96, 80, dtype=torch.uint8), None, "type", r"uint8 \[3, H, H\], not torch.uint8 \[3, 96, 80\]"),
        (torch.zeros(3, 96, 96), None, "type", "not torch.float32"),
        (torch.zeros(1, 3, 96, 96, dtype=torch.uint8), None, "type", r"\[1, 3, 96, 96\]"),
        (torch.zeros(3, 96, 96, dtype=torch.uint8), 10, "type", "type has the classes 0 to 9, not 10"),
        (torch.zeros(3, 96, 96, dtype=torch.uint8), -1, "type", "type has the classes 0 to 9, not -1"),
        (torch.zeros(3, 96, 96, dtype=torch.uint8), 0, "clarity", "clarity is a value and has no class 0"),
        (
            torch.zeros(3, 96, 96, dtype=torch.uint8),
            None,
            "engines",
            "does not answer 'engines'; it has heads for type",
        ),
    ],
)
def test_what_cannot_be_explained(
    hybrid: HybridModel, image: Tensor, class_index: int | None, task: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        explain(hybrid, image, class_index, task=task)


def test_explaining_needs_neither_training_nor_tracking() -> None:
    files = imported_files(ROOT / "src/aerofuse/inference/explain.py")
    assert Path("src/aerofuse/models/aircraft_model.py") in files
    assert not {
        path
        for path in files
        if path.parts[2] in {"training", "metrics", "comparison", "report", "plotting", "tracking"}
    }
    for path in files:
        text = (ROOT / path).read_text(encoding="utf-8")
        assert "import mlflow" not in text
        assert "import dvc" not in text
