from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint

from aerofuse.backbones.backbone import create_backbone
from aerofuse.memory.counter import LiveBytes
from aerofuse.memory.report import Kind
from tests.memory.models import Deep, small_net

# Bytes of the small net on 16 inputs.
PARAMETERS = 4 * (8 * 4 + 8 + 2 * 8 + 2)
INPUTS = 4 * 16 * 4
HIDDEN = 4 * 16 * 8
OUTPUTS = 4 * 16 * 2
SCALAR = 4


def test_every_byte_of_a_small_net() -> None:
    net, inputs = small_net(), torch.rand(16, 4)
    with LiveBytes(net, inputs=[inputs]) as live:
        outputs = net(inputs)
        loss = outputs.sum()
        after_forward = live.bytes_by_kind
        loss.backward()
        after_backward = live.bytes_by_kind
    existing = dict.fromkeys(Kind, 0) | {Kind.PARAMETERS: PARAMETERS, Kind.INPUTS: INPUTS}
    # The first layer's output is not kept: ReLU saves what it returns.
    assert after_forward == existing | {Kind.ACTIVATIONS: HIDDEN + OUTPUTS + SCALAR}
    assert after_backward == existing | {Kind.ACTIVATIONS: OUTPUTS + SCALAR, Kind.GRADIENTS: PARAMETERS}
    report = live.report()
    # In ReLU's backward its output, the gradient of that and the gradient of its input are there, the last layer
    # has its gradients, and the gradient of the loss is a scalar of its own, made before the backward begins.
    assert report.at_peak == existing | {
        Kind.GRADIENTS: 4 * (2 * 8 + 2),
        Kind.ACTIVATIONS: HIDDEN + OUTPUTS + 2 * SCALAR,
        Kind.TEMPORARIES: 2 * HIDDEN,
    }
    assert report.peak_bytes == sum(report.at_peak.values())
    assert report.peak_activation_bytes == 3 * HIDDEN + OUTPUTS + 2 * SCALAR


def test_a_storage_counts_once_from_birth_to_death() -> None:
    net = small_net()
    with LiveBytes(net) as live:
        rows = torch.zeros(100, 4)
        views = [rows.T, rows[:10], rows.view(-1), rows.detach(), rows.add_(1)]
        assert live.bytes_by_kind[Kind.ACTIVATIONS] == 1600
        del rows
        assert live.bytes_by_kind[Kind.ACTIVATIONS] == 1600, "its views hold it"
        del views
        assert live.bytes_by_kind[Kind.ACTIVATIONS] == 0
        next(net.parameters()).detach().view(-1)
        assert live.bytes_by_kind[Kind.ACTIVATIONS] == 0, "a view of a parameter is the parameter"
    assert live.report().peak_bytes == PARAMETERS + 1600


def test_a_storage_that_grows() -> None:
    with LiveBytes(small_net()) as live:
        tensor = torch.zeros(10)
        tensor.resize_(50)
        assert live.bytes_by_kind[Kind.ACTIVATIONS] == 200


def test_what_was_there_before_counts_from_when_it_is_returned() -> None:
    before = torch.zeros(100)
    with LiveBytes(small_net()) as live:
        total = before.sum()
        assert live.bytes_by_kind[Kind.ACTIVATIONS] == total.nbytes
        view = before[:10]
        assert live.bytes_by_kind[Kind.ACTIVATIONS] == total.nbytes + before.nbytes
        del view


def test_the_peak_can_start_again() -> None:
    with LiveBytes(small_net()) as live:
        torch.zeros(1000)
        live.reset_peak()
        torch.zeros(10)
    assert live.report().peak_bytes == PARAMETERS + 40
    with live:
        pass
    assert live.report().peak_bytes == PARAMETERS


def test_optimizer_state_is_found_when_it_is_made_and_when_it_is_there() -> None:
    net, inputs = small_net(), torch.rand(16, 4)
    optimizer = torch.optim.AdamW(net.parameters())
    net(inputs).sum().backward()
    state_bytes = 2 * PARAMETERS + 4 * SCALAR  # two averages, and a count of steps per parameter
    with LiveBytes(net, optimizer) as live:
        assert live.bytes_by_kind[Kind.GRADIENTS] == PARAMETERS
        optimizer.step()
        optimizer.zero_grad()
        assert live.bytes_by_kind[Kind.OPTIMIZER_STATE] == state_bytes
        assert live.bytes_by_kind[Kind.TEMPORARIES] == live.bytes_by_kind[Kind.GRADIENTS] == 0
    with LiveBytes(net, optimizer) as live:
        assert live.bytes_by_kind[Kind.OPTIMIZER_STATE] == state_bytes


def test_the_optimizer_works_with_temporaries() -> None:
    net = small_net()
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.rand(16, 4)).sum().backward()
    optimizer.step()
    with LiveBytes(net, optimizer) as live:
        optimizer.step()
    report = live.report()
    assert report.at_peak[Kind.TEMPORARIES] > 0
    assert report.at_peak[Kind.ACTIVATIONS] == 0


def _peak_activation_bytes(net: nn.Module) -> int:
    inputs = torch.rand(64, 32)
    with LiveBytes(net, inputs=[inputs]) as live:
        net(inputs).sum().backward()
    return live.report().peak_activation_bytes


def test_checkpointing_lowers_the_peak() -> None:
    layer_bytes = 4 * 64 * 32
    # What every Tanh returns, and the first gradient; what follows the last Tanh is a scalar.
    assert _peak_activation_bytes(Deep()) // layer_bytes == 8 + 1
    # What the first half returns, what the four Tanhs of the second return again, and the first gradient.
    assert _peak_activation_bytes(Deep(checkpointed=True)) // layer_bytes == 1 + 4 + 1


def test_what_a_recomputation_makes_are_activations() -> None:
    net = small_net()
    inputs = torch.rand(16, 4, requires_grad=True)

    def without_modules(tensor: Tensor) -> Tensor:
        return tensor.exp().exp()

    with LiveBytes(net, inputs=[inputs]) as live:
        outputs = checkpoint(without_modules, inputs, use_reentrant=False)
        live.reset_peak()
        outputs.sum().backward()
    # The output and the two that are computed again, or one of them less where the recomputation stops early.
    assert live.report().at_peak[Kind.ACTIVATIONS] >= 2 * INPUTS


class _Branches(nn.Module):
    """A tensor that is used twice, so that autograd sums two gradients of it."""

    def forward(self, inputs: Tensor) -> Tensor:
        features = inputs.exp()
        return 2 * features + 3 * features


def test_a_sum_of_gradients_takes_no_room() -> None:
    inputs = torch.rand(256, requires_grad=True)
    with LiveBytes(_Branches(), inputs=[inputs]) as live:
        outputs = _Branches()(inputs)
        gradient = torch.ones(256)
        live.reset_peak()
        outputs.backward(gradient)
    # Features, outputs and their gradient, and two gradients of the features.
    assert live.report().peak_activation_bytes == 5 * inputs.nbytes


def _allocated_peak_bytes(net: nn.Module, inputs: Tensor, trace: Path) -> int:
    """The peak of what the CPU's allocator gave in a forward and backward, as the profiler recorded it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        net(inputs).sum().backward()
    profiler.export_chrome_trace(str(trace))
    events = json.loads(trace.read_text())["traceEvents"]
    changes = [(event["ts"], event["args"]["Bytes"]) for event in events if event["name"] == "[memory]"]
    allocated = peak = 0
    for _, change in sorted(changes, key=lambda change: float(change[0])):
        allocated += change
        peak = max(peak, allocated)
    return peak


@pytest.mark.parametrize("name", ["mobilenetv3_small_100", "vit_tiny_patch16_224"])
def test_the_peak_is_the_one_of_the_allocator(name: str, tmp_path: Path) -> None:
    net, inputs = create_backbone(name, image_size_px=96), torch.rand(8, 3, 96, 96)
    allocated_bytes = _allocated_peak_bytes(net, inputs, tmp_path / "trace.json")
    net.zero_grad()
    with LiveBytes(net, inputs=[inputs]) as live:
        existing_bytes = sum(live.bytes_by_kind.values())
        net(inputs).sum().backward()
    assert live.report().peak_bytes - existing_bytes == pytest.approx(allocated_bytes, rel=1e-2)


def test_an_error_ends_the_counting() -> None:
    net = small_net()
    live = LiveBytes(net)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), live:
        net(torch.rand(16, 5))
    bytes_by_kind = live.bytes_by_kind
    torch.zeros(10)
    assert live.bytes_by_kind == bytes_by_kind
    assert not any(parameter._post_accumulate_grad_hooks for parameter in net.parameters())
