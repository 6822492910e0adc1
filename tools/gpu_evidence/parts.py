"""The parts of the evidence, the most important first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from tools.gpu_evidence.evidence import EvidenceStep
from tools.gpu_evidence.names import GATE, LATENCY, MONET, NETWORKS, OFFLOAD, THROUGHPUT
from tools.gpu_evidence.plans import gate_rows, monet_rows, network_rows
from tools.gpu_evidence.sizes import EvidenceSizes
from tools.gpu_evidence.speed import INFERENCE, TRAINING, latency_rows, throughput_rows

# Estimates for one large GPU, in seconds.
_EAGER_S, _COMPILED_TRAINING_S, _COMPILED_PASSES_S = 20, 200, 80


@dataclass(frozen=True)
class EvidencePart:
    """What has a file of its own; all of its steps take about so many `minutes` on one large GPU."""

    name: str
    minutes: float
    summary: str
    steps: Callable[[EvidenceSizes], Sequence[EvidenceStep]]


def _gate(sizes: EvidenceSizes) -> list[EvidenceStep]:
    return [EvidenceStep("hybrid", 90, partial(gate_rows, sizes))]


def _networks(sizes: EvidenceSizes) -> list[EvidenceStep]:
    return [EvidenceStep(name, 30, partial(network_rows, sizes, name)) for name in sizes.networks]


def _monet(sizes: EvidenceSizes) -> list[EvidenceStep]:
    return [EvidenceStep(sizes.monet_network, 60, partial(monet_rows, sizes))]


def _throughput(sizes: EvidenceSizes) -> list[EvidenceStep]:
    return [
        EvidenceStep(how.name, _COMPILED_TRAINING_S if how.compiled else _EAGER_S, partial(throughput_rows, sizes, how))
        for how in TRAINING
    ]


def _offload(sizes: EvidenceSizes) -> list[EvidenceStep]:
    return [
        EvidenceStep(name, 30, partial(network_rows, sizes, name, offload=True)) for name in sizes.offloaded_networks
    ]


def _latency(sizes: EvidenceSizes) -> list[EvidenceStep]:
    return [
        EvidenceStep(how.name, _COMPILED_PASSES_S if how.compiled else _EAGER_S, partial(latency_rows, sizes, how))
        for how in INFERENCE
    ]


PARTS = (
    EvidencePart(
        GATE, 1.5, "memory of the hybrid of `base`, phase C at batch 16 with AdamW in bf16: below 20 GB?", _gate
    ),
    EvidencePart(
        NETWORKS, 5, "every family's middle variant in bf16 at batch 64, under timm's switch and plans", _networks
    ),
    EvidencePart(MONET, 1, "ResNet-50 at batch 184 within MONeT's budgets", _monet),
    EvidencePart(THROUGHPUT, 4, "training of the hybrid of `base` beside timm's two networks in series", _throughput),
    EvidencePart(LATENCY, 2, "the hybrid of `base` for one image", _latency),
    EvidencePart(OFFLOAD, 1.5, "networks in bf16 at batch 64 under plans that may use host memory", _offload),
)
