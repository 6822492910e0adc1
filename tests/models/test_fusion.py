from __future__ import annotations

import pytest
import torch

from aerofuse.models.fusion import FUSIONS, AttentionFusion, create_fusion

CNN = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
TRANSFORMER = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("method", FUSIONS)
def test_fused_size_is_as_announced(method: str) -> None:
    fusion = create_fusion(method, 8, 6)
    assert fusion(CNN, TRANSFORMER).shape == (3, fusion.num_features)
    assert fusion.num_features == (14 if method == "concat" else 8)


@pytest.mark.parametrize("method", FUSIONS)
def test_both_branches_matter_and_receive_gradients(method: str) -> None:
    cnn, transformer = CNN.clone().requires_grad_(), TRANSFORMER.clone().requires_grad_()
    create_fusion(method, 8, 6)(cnn, transformer).square().sum().backward()
    for branch in (cnn, transformer):
        assert branch.grad is not None
        assert branch.grad.abs().sum(dim=1).gt(0).all()


def test_add_projects_only_where_the_sizes_differ() -> None:
    assert torch.equal(create_fusion("add", 8, 8)(CNN, CNN), 2 * CNN)
    assert not list(create_fusion("add", 8, 8).parameters())
    assert list(create_fusion("add", 8, 6).parameters())


def test_attention_weights_are_one_distribution_per_sample() -> None:
    fusion = AttentionFusion(8, 6)
    weights = fusion.branch_weights(CNN, TRANSFORMER)
    assert weights.shape == (3, 2)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3))
    assert not torch.equal(weights[0], weights[1])


def test_attention_is_the_weighted_sum_of_its_branches() -> None:
    fusion = AttentionFusion(8, 6)
    weights = fusion.branch_weights(CNN, TRANSFORMER)
    mixed = weights[:, :1] * fusion.cnn_projection(CNN) + weights[:, 1:] * fusion.transformer_projection(TRANSFORMER)
    torch.testing.assert_close(fusion(CNN, TRANSFORMER), fusion.output_projection(mixed))


def test_unknown_method_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'bogus'.*concat, add, attention"):
        create_fusion("bogus", 8, 6)
