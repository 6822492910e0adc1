from __future__ import annotations

import pytest
import torch
from torch import Tensor

from aerofuse.backbones.backbone import Features
from aerofuse.models.fusion import FUSIONS, AttentionFusion, BilinearFusion, BranchSize, create_fusion


def _drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# Branches of different sizes: vectors of 8 and 6, maps of 12 and 10 channels with 6 x 6 and 4 x 4 places.
CNN_MAP, TRANSFORMER_MAP = _drawn(2, 3, 12, 6, 6), _drawn(3, 3, 10, 4, 4)
CNN, TRANSFORMER = Features(_drawn(0, 3, 8), CNN_MAP), Features(_drawn(1, 3, 6), TRANSFORMER_MAP)
SIZES = BranchSize(8, 12), BranchSize(6, 10)
NUM_FEATURES = {"concat": 14, "add": 8, "attention": 8, "bilinear": 14 + 256, "cross_attention": 14 + 256}


@pytest.mark.parametrize("method", FUSIONS)
def test_fused_size_is_as_announced(method: str) -> None:
    fusion = create_fusion(method, *SIZES)
    assert fusion(CNN, TRANSFORMER).shape == (3, fusion.num_features)
    assert fusion.num_features == NUM_FEATURES[method]


@pytest.mark.parametrize("method", FUSIONS)
def test_both_branches_matter_and_receive_gradients(method: str) -> None:
    torch.manual_seed(0)
    fusion = create_fusion(method, *SIZES)
    vectors = [branch.pooled.clone().requires_grad_() for branch in (CNN, TRANSFORMER)]
    maps = [one.clone().requires_grad_() for one in (CNN_MAP, TRANSFORMER_MAP)]
    fused = fusion(*map(Features, vectors, maps))
    for gradient in torch.autograd.grad(fused.square().sum(), vectors + maps if fusion.reads_maps else vectors):
        assert gradient.flatten(1).abs().sum(dim=1).gt(0).all()


@pytest.mark.parametrize("method", [name for name, fusion in FUSIONS.items() if fusion.reads_maps])
def test_what_maps_add_depends_on_both_of_them(method: str) -> None:
    torch.manual_seed(0)
    fusion = create_fusion(method, *SIZES)
    fused = fusion(CNN, TRANSFORMER)
    assert torch.equal(fused[:, :14], torch.cat([CNN.pooled, TRANSFORMER.pooled], dim=1))
    of_another_cnn = fusion(CNN._replace(map=CNN_MAP.flip(0)), TRANSFORMER)
    of_another_transformer = fusion(CNN, TRANSFORMER._replace(map=TRANSFORMER_MAP.flip(0)))
    for other in (of_another_cnn, of_another_transformer):
        assert (other[0, 14:] - fused[0, 14:]).abs().max() > 1e-3


def test_bilinear_pooling_multiplies_place_by_place() -> None:
    """Moving both maps alike changes nothing, moving one of them does."""
    torch.manual_seed(0)
    fusion = BilinearFusion(*SIZES)
    transformer_map = _drawn(4, 3, 10, 6, 6)
    fused = fusion(CNN, TRANSFORMER._replace(map=transformer_map))
    moved_cnn = CNN._replace(map=CNN_MAP.roll(1, -1))
    torch.testing.assert_close(fusion(moved_cnn, TRANSFORMER._replace(map=transformer_map.roll(1, -1))), fused)
    assert not torch.allclose(fusion(moved_cnn, TRANSFORMER._replace(map=transformer_map)), fused)
    torch.testing.assert_close(fused[:, 14:].norm(dim=1), fusion.scale.expand(3))


def test_a_product_of_zero_has_a_finite_gradient() -> None:
    fusion = BilinearFusion(*SIZES)
    dark = torch.zeros(1, 12, 4, 4, requires_grad=True)
    fused = fusion(Features(torch.zeros(1, 8), dark), Features(torch.zeros(1, 6), torch.zeros(1, 10, 4, 4)))
    for gradient in torch.autograd.grad(fused.sum(), [dark, *fusion.parameters()]):
        assert gradient.isfinite().all()


def test_add_projects_only_where_the_sizes_differ() -> None:
    same = create_fusion("add", SIZES[0], SIZES[0])
    assert torch.equal(same(CNN, CNN), 2 * CNN.pooled)
    assert not list(same.parameters())
    assert list(create_fusion("add", *SIZES).parameters())


def test_attention_weights_are_one_distribution_per_sample() -> None:
    fusion = AttentionFusion(*SIZES)
    weights = fusion.branch_weights(CNN, TRANSFORMER)
    assert weights.shape == (3, 2)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3))
    assert not torch.equal(weights[0], weights[1])


def test_attention_is_the_weighted_sum_of_its_branches() -> None:
    fusion = AttentionFusion(*SIZES)
    weights = fusion.branch_weights(CNN, TRANSFORMER)
    mixed = weights[:, :1] * fusion.cnn_projection(CNN.pooled) + weights[:, 1:] * fusion.transformer_projection(
        TRANSFORMER.pooled
    )
    torch.testing.assert_close(fusion(CNN, TRANSFORMER), fusion.output_projection(mixed))


def test_unknown_method_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'bogus'.*concat, add, attention, bilinear, cross_attention"):
        create_fusion("bogus", *SIZES)
