from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from aerofuse.planning.planner import Planner
from tests.imports import ROOT
from tests.tools.benchmarks.samples import ESTIMATED, tiny_subject
from tools.benchmarks import hybrid
from tools.benchmarks.hybrid import hybrid_subject
from tools.benchmarks.measuring import count, find_segments
from tools.benchmarks.rows import AT_HALF, AT_SEGMENTS, AT_SWITCH, BASELINE, LEAST, SEGMENTS, SWITCH
from tools.benchmarks.subjects import Subject, backbone_subject, input_shape, middle_variant
from tools.benchmarks.ways import plain_ways, planned_shares, planned_ways, switched

pytestmark = pytest.mark.slow


def outputs(model: nn.Module, subject: Subject) -> list[Tensor]:
    torch.manual_seed(1)
    found = model(subject.inputs(2))
    return list(found.values()) if isinstance(found, dict) else [found]


def test_subjects_are_the_middle_variants_on_images_or_clips() -> None:
    assert [middle_variant(family) for family in ("resnet", "vit", "swin")] == [
        "resnet50",
        "vit_base_patch16_224",
        "swin_small_patch4_window7_224",
    ]
    assert input_shape("resnet", 8) == (8, 3, 224, 224)
    assert input_shape("swin3d", 2, 64) == (2, 3, 16, 32, 32)
    with pytest.raises(ValueError, match="near names: resnet50"):
        backbone_subject("resnet55")


@pytest.mark.parametrize("kind", ["backbone", "hybrid"])
def test_under_the_switch_it_is_the_same_network(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    subject = tiny_subject(32) if kind == "backbone" else hybrid_subject("quick", 32)
    twin = switched(subject.model)
    assert {id(tensor) for tensor in twin.parameters()} == {id(tensor) for tensor in subject.model.parameters()}
    assert {id(tensor) for tensor in twin.buffers()} == {id(tensor) for tensor in subject.model.buffers()}
    assert all(torch.equal(*pair) for pair in zip(outputs(twin, subject), outputs(subject.model, subject), strict=True))
    ways = plain_ways(subject.model)
    find_segments(ways, subject)
    held = {name: count(way, subject, 4, "float32").peak_activation_bytes for name, way in ways.items()}
    assert held[SWITCH] < held[BASELINE]
    assert held[SEGMENTS] < held[BASELINE]


def test_a_network_without_a_switch_is_checkpointed_unit_by_unit() -> None:
    subject = backbone_subject("swin3d_t", 64)
    assert not hasattr(subject.model.model, "set_grad_checkpointing")
    ways = plain_ways(subject.model)
    held = {name: count(ways[name], subject, 1, "float32").peak_activation_bytes for name in (BASELINE, SWITCH)}
    assert held[SWITCH] < 0.6 * held[BASELINE]


def test_planned_ways_follow_other_peaks(caplog: pytest.LogCaptureFixture) -> None:
    subject = tiny_subject()
    planner = Planner(subject.model, subject.input_shape(4), stopwatch=ESTIMATED)
    baseline = planner.baseline.activation_bytes
    shares = planned_shares(planner, {BASELINE: baseline, SWITCH: baseline // 2, SEGMENTS: baseline * 3 // 4})
    assert shares[AT_SWITCH] == pytest.approx(shares[AT_HALF])
    assert shares[LEAST] < shares[AT_SWITCH] < shares[AT_SEGMENTS]
    ways = planned_ways(subject.model, planner, {AT_HALF: 0.5, "hopeless": 0.01})
    assert list(ways) == [AT_HALF]
    assert "not hopeless: a budget of 1% is too little" in caplog.text
    plan = ways[AT_HALF].plan
    assert plan is not None
    held = count(ways[AT_HALF], subject, 4, "float32").peak_activation_bytes
    assert held == plan.predicted.activation_bytes <= 0.5 * baseline
    # The plan itself is for no more than 4; as a way it can be measured with more.
    assert held < count(ways[AT_HALF], subject, 9, "float32").peak_activation_bytes < 3 * held
    assert plan.scope.input_shape[0] == 4


def test_planning_is_timed_for_a_hybrid_that_is_never_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    asked: list[object] = []

    class Recorder:
        def __init__(self, model: nn.Module, shape: tuple[int, ...], **step: object) -> None:
            assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
            asked.extend([shape, step["optimizer"], step["precision"], step["input_dtype"]])

        def least(self) -> None:
            asked.append("least")

        def plan(self, budget: object) -> None:
            asked.append(budget)

    monkeypatch.setattr(hybrid, "Planner", Recorder)
    assert hybrid.plan_hybrid("base") >= 0
    assert asked == [(16, 3, 224, 224), "adamw", "bf16", torch.uint8, "least", 0.5]


@pytest.mark.slow
def test_planning_is_timed_in_processes_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    planning = hybrid.time_planning("quick")
    assert (planning.model, planning.input_shape, planning.precision) == ("hybrid of quick", "32x3x96x96", "bf16")
    assert planning.seconds_again is not None
    assert planning.seconds_again < planning.seconds, "the second process finds the kinds of units on disk"


def test_a_hybrid_of_no_recipe_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(ValueError, match=r"no 'recipes\.enormous\.backbones'"):
        hybrid_subject("enormous")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="run from the root"):
        hybrid_subject("quick")
