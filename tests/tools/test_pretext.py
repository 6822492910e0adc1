from __future__ import annotations

import torch

from aerofuse.backbones.backbone import create_backbone
from aerofuse.data.labels import ClassLists
from tools.pretext import PretextBackbone, PretextModel, Teacher


def test_a_teacher_finds_no_errors_in_what_it_sees_itself() -> None:
    backbone, learner = (create_backbone("convnext_thin", image_size_px=96) for _ in range(2))
    learner.load_state_dict(backbone.state_dict())
    teacher = Teacher(backbone, learner).train()
    with torch.no_grad():
        for parameter in teacher.parameters():
            if parameter.requires_grad:  # it translates
                parameter.copy_(
                    torch.eye(len(parameter)).view_as(parameter) if parameter.ndim > 1 else torch.tensor(0.0)
                )
    pretext, images = PretextBackbone(learner).train(), torch.rand(8, 3, 96, 96)
    errors = teacher.errors(images, *pretext.with_maps(images))
    assert {name: error.shape[1] for name, error in errors.items()} == teacher.num_errors(96)
    for name, error in errors.items():
        assert error.abs().mean() < 0.01, name
    other = teacher.errors(images, *pretext.with_maps(images.flip(0)))
    assert all(error.abs().mean() > 0.1 for error in other.values())


def test_a_teacher_stays_as_it_is() -> None:
    backbone, learner = (create_backbone(name, image_size_px=96) for name in ("convnext_thin", "swin_thin"))
    model = PretextModel(learner, ClassLists(("a", "b"), ("c",)), 4, Teacher(backbone, learner)).train()
    assert not backbone.training
    outputs = model(torch.randint(0, 255, (4, 3, 96, 96), dtype=torch.uint8))
    torch.stack([output.square().mean() for output in outputs.values()]).sum().backward()
    assert all(parameter.grad is None for parameter in backbone.parameters())
    assert all(parameter.grad is not None for parameter in learner.parameters())
