"""What the documentation promises to users who write Python, and how lightly it is imported."""

from __future__ import annotations

import inspect

import pytest
import torch

import aerofuse
from aerofuse import backbones
from aerofuse.inference.predictor import load_predictor
from aerofuse.planning import checkpointed, planner
from tests.new_python import check_in_new_python


def test_what_the_package_exports() -> None:
    exported = {
        "disable_gradient_checkpointing": checkpointed.disable_gradient_checkpointing,
        "enable_gradient_checkpointing": checkpointed.enable_gradient_checkpointing,
        "load": load_predictor,
        "plan_checkpointing": planner.plan_checkpointing,
    }
    assert {name: getattr(aerofuse, name) for name in aerofuse.__all__} == exported


def test_an_unknown_name_is_refused_with_the_public_ones() -> None:
    with pytest.raises(AttributeError, match="no attribute 'train'; public are disable_gradient_checkpointing, enable"):
        _ = aerofuse.train


def test_a_backbone_is_created_listed_and_planned_through_the_public_names() -> None:
    from aerofuse.backbones import create_backbone, list_backbones

    assert "convnext_atto" in list_backbones()["convnext"]
    backbone = create_backbone("convnext_thin", image_size_px=64)
    assert backbone(torch.zeros(1, 3, 64, 64)).shape == (1, backbone.num_features)
    plan = aerofuse.plan_checkpointing(backbone, (2, 3, 64, 64), 0.7)
    assert plan.predicted.peak_bytes > 0


@pytest.mark.parametrize("name", backbones.__all__)
def test_what_is_public_has_a_docstring(name: str) -> None:
    assert inspect.getdoc(getattr(backbones, name))


def test_importing_the_package_imports_no_library() -> None:
    check_in_new_python("import sys, aerofuse; assert not {'torch', 'timm', 'numpy'} & set(sys.modules)")
