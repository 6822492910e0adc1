from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import aerofuse
from aerofuse.backbones.backbone import create_backbone
from aerofuse.memory.report import Kind
from aerofuse.memory.step import count_training_step, sum_of_outputs
from tests.memory.models import SMALL_BACKBONES, small_backbone, small_net

PARAMETERS = 4 * (8 * 4 + 8 + 2 * 8 + 2)


@pytest.mark.parametrize("name", SMALL_BACKBONES)
@pytest.mark.parametrize(("precision", "optimizer"), [("float32", "adamw"), ("bf16", None)])
def test_fake_tensors_give_the_same_bytes(name: str, precision: Any, optimizer: Any) -> None:
    model, shape = small_backbone(name)
    real = count_training_step(model, shape, optimizer=optimizer, precision=precision)
    fake = count_training_step(model, shape, optimizer=optimizer, precision=precision, fake=True)
    on_meta, _ = small_backbone(name, device="meta")
    unbuilt = count_training_step(on_meta, shape, optimizer=optimizer, precision=precision, fake=True)
    assert fake == unbuilt
    assert real == fake


def test_a_steady_step_has_optimizer_state() -> None:
    report = count_training_step(small_net(), (16, 4))
    assert report.at_peak[Kind.OPTIMIZER_STATE] == 2 * PARAMETERS + 4 * 4
    assert report.at_peak[Kind.PARAMETERS] == PARAMETERS
    assert report.at_peak[Kind.INPUTS] == 4 * 16 * 4


def test_no_optimizer_has_no_state() -> None:
    report = count_training_step(small_net(), (16, 4), optimizer=None)
    assert report.at_peak[Kind.OPTIMIZER_STATE] == 0


def test_frozen_parts_hold_nothing_for_the_backward() -> None:
    net = nn.Sequential(*[layer for _ in range(4) for layer in (nn.Linear(64, 64), nn.Tanh())])
    whole = count_training_step(net, (32, 64), optimizer=None)
    net[:6].requires_grad_(False)
    part = count_training_step(net, (32, 64), optimizer=None)
    layer_bytes = 4 * 32 * 64
    assert whole.peak_activation_bytes - part.peak_activation_bytes >= 2 * layer_bytes


def test_autocast_copies_of_weights_are_counted() -> None:
    net = nn.Sequential(nn.Linear(256, 256, bias=False), nn.Linear(256, 256, bias=False))
    report = count_training_step(net, (1, 256), precision="bf16", optimizer=None, fake=True)
    assert report.peak_activation_bytes > 2 * 256 * 256 * 2


class _TwoHeads(nn.Module):
    """uint8 images to a dictionary, one of whose outputs is not of floating point."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(12, 4)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.body(images.flatten(1).float())
        return {"type": features, "clarity": features.mean(1), "answer": features.argmax(1)}


@pytest.mark.parametrize("fake", [False, True])
def test_images_and_several_outputs(fake: bool) -> None:
    report = count_training_step(_TwoHeads(), (5, 3, 2, 2), input_dtype=torch.uint8, fake=fake)
    assert report.at_peak[Kind.INPUTS] == 5 * 12


def test_a_loss_of_ones_own() -> None:
    seen: list[dict[str, Tensor]] = []

    def loss(outputs: dict[str, Tensor]) -> Tensor:
        seen.append(outputs)
        return outputs["type"].square().mean()

    count_training_step(_TwoHeads(), (5, 3, 2, 2), loss=loss)
    assert seen[0].keys() == {"type", "clarity", "answer"}


def test_a_model_larger_than_any_machine() -> None:
    model = nn.Linear(1_000_000, 1_000_000, bias=False, device="meta")
    report = count_training_step(model, (1, 1_000_000), fake=True)
    assert report.at_peak[Kind.PARAMETERS] == 4 * 10**12
    assert report.peak_bytes >= 16 * 10**12


def _same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("fake", [False, True])
def test_the_model_is_left_as_it_was(fake: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(144, 2))
    model[1].eval()
    model(torch.rand(2, 3, 8, 8)).sum().backward()
    parameters = list(model.parameters())
    gradients = [parameter.grad for parameter in parameters]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()

    count_training_step(model, (2, 3, 8, 8), precision="bf16", fake=fake)

    assert _same(model.state_dict(), state)
    assert all(now is before for now, before in zip(model.parameters(), parameters, strict=True))
    assert all(now.grad is before for now, before in zip(model.parameters(), gradients, strict=True))
    assert [module.training for module in model] == [True, False, True, True, True]
    assert torch.equal(torch.get_rng_state(), random_state)
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks
    assert not any(parameter._backward_hooks for parameter in parameters)
    assert not any(parameter._post_accumulate_grad_hooks for parameter in parameters)
    assert _same(copy.deepcopy(model).state_dict(), state)
    assert _same(pickle.loads(pickle.dumps(model)).state_dict(), state)


def test_the_model_is_left_as_it_was_after_an_error() -> None:
    net = small_net()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    net.eval()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        count_training_step(net, (16, 5))
    assert _same(net.state_dict(), state)
    assert not net.training


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"input_shape": ()}, r"input_shape is \(\); it needs sizes of at least 1"),
        ({"input_shape": (0, 4)}, r"input_shape is \(0, 4\)"),
        ({"optimizer": "sgd"}, "optimizer is 'sgd'; it must be one of 'adamw', None"),
        ({"precision": "fp8"}, "precision is 'fp8'; it must be one of 'float32', 'bf16'"),
        ({"model": nn.ReLU()}, "no parameter of the model requires a gradient"),
        ({"model": nn.Linear(4, 2, device="meta")}, "fake=True"),
        ({"model": nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2, device="meta"))}, "on cpu, meta; move it to one"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"model": small_net(), "input_shape": (16, 4)} | settings
    with pytest.raises(ValueError, match=message):
        count_training_step(**arguments)


class _Argmax(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layer(inputs).argmax(1)
        return outputs


def test_a_model_without_a_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="pass a loss of your own"):
        count_training_step(_Argmax(), (2, 4))


_MEASURED_STEP = """
import os, sys, torch
from aerofuse.backbones.backbone import create_backbone

torch.set_num_threads(1)
model = create_backbone("vit_tiny_patch16_224", image_size_px=224).train()
model(torch.rand(1, 3, 224, 224)).sum().backward()  # loads what a first step loads
model.zero_grad()
inputs = torch.rand(12, 3, 224, 224)
pages = int(open("/proc/self/statm").read().split()[1])
model(inputs).sum().backward()
# Not getrusage: its peak begins with that of the process that started this one.
peak = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
sys.stdout.write(str(peak - pages * os.sysconf("SC_PAGE_SIZE")))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of the process from /proc")
def test_the_counted_peak_is_what_the_process_takes() -> None:
    """A step of another process, which counts nothing, and its resident memory as the system sees it."""
    # Freed memory goes back to the system at once.
    malloc = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    environment = {**os.environ, **malloc, "PYTHONPATH": str(Path(aerofuse.__file__).parent.parent)}
    run = subprocess.run([sys.executable, "-c", _MEASURED_STEP], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    with torch.device("meta"):
        model = create_backbone("vit_tiny_patch16_224", image_size_px=224)
    report = count_training_step(model, (12, 3, 224, 224), optimizer=None, fake=True)
    existing_bytes = report.at_peak[Kind.PARAMETERS] + report.at_peak[Kind.INPUTS]
    assert report.peak_bytes - existing_bytes == pytest.approx(float(run.stdout), rel=0.1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_peak_on_cuda_is_the_allocators() -> None:
    net = nn.Sequential(*[layer for _ in range(4) for layer in (nn.Linear(1024, 1024), nn.Tanh())]).cuda()
    foreign = torch.zeros(10_000_000, device="cuda")
    report = count_training_step(net, (4096, 1024))
    counted_bytes = sum(report.at_peak.values())
    # What libraries reserve as their work space is on top.
    assert counted_bytes <= report.peak_bytes < 1.1 * counted_bytes + 100_000_000
    assert foreign.is_cuda


class Nested(nn.Module):
    """What it returns is in a data class, a tuple and a dictionary, with a number of integers beside it."""

    @dataclass
    class Outputs:
        scores: Tensor
        others: tuple[dict[str, Tensor], Tensor | None]

    def __init__(self) -> None:
        super().__init__()
        self.net = small_net()

    def forward(self, x: Tensor) -> Outputs:
        scores = self.net(x)
        return self.Outputs(scores, ({"doubled": 2 * scores, "best": scores.argmax(1)}, None))


def test_outputs_of_any_kind_are_summed() -> None:
    network, x = Nested(), torch.rand(3, 4)
    assert torch.equal(sum_of_outputs(network(x)), network.net(x).sum() + (2 * network.net(x)).sum())
    assert count_training_step(network, (3, 4), fake=True).peak_bytes > 0
    with pytest.raises(ValueError, match="no output of the model is of floating point"):
        sum_of_outputs([torch.ones(2, dtype=torch.int64), "text"])
