"""Tries one network: two steps under each policy against two without checkpointing, and peaks on fake tensors."""

from __future__ import annotations

import copy
import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from accelerate.utils import set_seed
from torch import Tensor, nn

from aerofuse.checkpointing.attached import attached_to
from aerofuse.checkpointing.budget import Budget
from aerofuse.memory.step import count_training_step, tensors_of_outputs
from aerofuse.planning.checkpointed import enable_gradient_checkpointing
from aerofuse.planning.estimates import Estimated
from aerofuse.planning.planner import Planner
from tools.any_network.findings import Finding, Served
from tools.any_network.networks import Built, NetworkName, build

_POLICIES: Mapping[str, Mapping[str, Any]] = {
    "recompute_all": {"policy": "recompute_all"},
    "selective": {"policy": "selective"},
    "segments=2": {"segments": 2},
}
_PLANNED = "planned"
_NUM_STEPS = 2
_LEARNING_RATE = 1e-3
_ESTIMATED = Estimated(flops_per_second=5e10, bytes_per_second=1e10)


def loss_of(outputs: Any) -> Tensor:
    """Return the mean square of all that a network returns."""
    return torch.stack([tensor.square().mean() for tensor in tensors_of_outputs(outputs)]).sum()


def try_network(name: NetworkName) -> Finding:
    """Return what is found of a network. It raises nothing that the network, or its checkpointing, raises."""
    finding = Finding(name.library, name.name, name.file, Served.NOT_BUILT)
    try:
        built = build(name)
        expected = _outcome(copy.deepcopy(built.network), built.input_shape)
    except Exception as error:
        return replace(finding, reason=words(error))
    parameters = sum(parameter.numel() for parameter in built.network.parameters())
    finding = replace(finding, parameters=parameters, image_px=built.input_shape[-1])
    if differences := _differences(expected, _outcome(copy.deepcopy(built.network), built.input_shape)):
        return replace(finding, reason=f"two runs without checkpointing differ: {differences}")
    return _Trial(built, expected).run(finding)


@dataclass
class _Trial:
    """A network, and what two of its steps give without checkpointing."""

    built: Built
    expected: Mapping[str, str]
    planner: Planner = field(init=False)

    def run(self, finding: Finding) -> Finding:
        found: dict[str, str] = {}
        way = ""
        try:
            for way, settings in _POLICIES.items():
                network = copy.deepcopy(self.built.network)
                enable_gradient_checkpointing(network, **settings)
                found[way] = self._differences(network)
                finding = _with_chains(finding, network)
            way = _PLANNED
            finding, found[way] = self._plan(finding)
        except Exception as error:
            if way != _PLANNED or not isinstance(error, ValueError):  # with which a planner refuses
                return replace(finding, served=Served.FAILED, reason=f"{way}: {words(error)}")
            finding = replace(finding, served=Served.NOT_PLANNED, reason=words(error))
        if any(found.values()):
            differs = "; ".join(f"{way}: {what}" for way, what in found.items() if what)
            return replace(finding, served=Served.NOT_EXACT, differs=differs)
        if finding.served == Served.NOT_PLANNED:
            return finding
        return self._beside_switch(
            replace(finding, served=Served.EXACT if int(finding.longest) > 1 else Served.UNITS_ONLY)
        )

    def _plan(self, finding: Finding) -> tuple[Finding, str]:
        network = copy.deepcopy(self.built.network)
        self.planner = Planner(network, self.built.input_shape, loss=loss_of, stopwatch=_ESTIMATED)
        baseline = self.planner.baseline.activation_bytes
        least = self.planner.least(counts_everything=False).activation_bytes
        self.planner.plan(Budget(share=(least + baseline) / 2 / baseline)).apply(network)
        return replace(finding, baseline_bytes=baseline, least_bytes=least), self._differences(network)

    def _beside_switch(self, finding: Finding) -> Finding:
        """Add what the library's own switch does, and the plan at its peak."""
        network = switched(self.built.network)
        if network is None:
            return finding
        try:
            report = count_training_step(network, self.built.input_shape, loss=loss_of, optimizer=None, fake=True)
            differs = self._differences(network)
        except Exception as error:
            return replace(finding, reason=f"the library's own switch: {words(error)}")
        peak_bytes = report.peak_activation_bytes
        finding = replace(finding, switch_bytes=peak_bytes, switch_differs=differs)
        share = peak_bytes / self.planner.baseline.activation_bytes
        try:
            predicted = self.planner.plan(Budget(share=share)).predicted
        except ValueError as error:
            return replace(finding, reason=f"at the switch's peak: {words(error)}")
        time_ratio = round(predicted.time_ratio, 4)
        return replace(finding, plan_bytes=predicted.activation_bytes, plan_time_predicted=time_ratio)

    def _differences(self, network: nn.Module) -> str:
        return _differences(self.expected, _outcome(network, self.built.input_shape))


def switched(network: nn.Module) -> nn.Module | None:
    """Return a copy of a network under the switch of timm or of Hugging Face, `None` where it has none."""
    copied = copy.deepcopy(network)
    twin: Any = copied
    for name, arguments in (("set_grad_checkpointing", (True,)), ("gradient_checkpointing_enable", ())):
        if hasattr(twin, name):
            try:
                getattr(twin, name)(*arguments)
            except (AssertionError, ValueError, NotImplementedError):  # it has the method, and says that it has none
                return None
            return copied
    return None


def _with_chains(finding: Finding, network: nn.Module) -> Finding:
    lengths = [len(chain) for attached in attached_to(network) for chain in attached.chains]
    return replace(finding, chains=len(lengths), units=sum(lengths), longest=max(lengths, default=0))


def _outcome(network: nn.Module, shape: tuple[int, ...]) -> dict[str, str]:
    """Return digests of the losses, gradients, buffers and random state of two steps."""
    optimizer = torch.optim.SGD(network.parameters(), _LEARNING_RATE)
    set_seed(1)
    found: dict[str, str] = {}
    for step in range(_NUM_STEPS):
        images = torch.rand(shape)
        optimizer.zero_grad()
        loss = loss_of(network(images))
        loss.backward()
        found[f"loss {step}"] = _digest(loss)
        for name, parameter in network.named_parameters():
            if parameter.grad is not None:
                found[f"gradient {step} {name}"] = _digest(parameter.grad)
        optimizer.step()
    found |= {f"buffer {name}": _digest(buffer) for name, buffer in network.named_buffers()}
    return found | {"random state": _digest(torch.get_rng_state())}


def _digest(tensor: Tensor) -> str:
    values = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.blake2b(values.numpy().data, digest_size=16).hexdigest()


def _differences(expected: Mapping[str, str], found: Mapping[str, str]) -> str:
    """Return how many of what differ, such as `3 gradients, 2 buffers`."""
    names = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
    return ", ".join(f"{count} {kind}" for kind, count in Counter(name.split()[0] for name in names).items())


def words(error: Exception) -> str:
    """Return the class of an error and what it says, in one line."""
    text = re.sub(r"\s+", " ", str(error)).strip()
    return f"{type(error).__name__}: {text[:300]}"
