"""What a training step takes at its peak, by kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum


class Kind(StrEnum):
    """What a tensor's memory is used for, in the order of the tables.

    - `PARAMETERS`: the model's parameters and buffers.
    - `GRADIENTS`: what parameters hold as their gradient; while it is still being computed it is a temporary.
    - `OPTIMIZER_STATE`: what the optimiser needs from step to step.
    - `INPUTS`: the batch.
    - `ACTIVATIONS`: born in a forward, also in one that is repeated inside the backward; autocast's copies of
      the weights in low precision, which live until the backward has used them, are among them.
    - `TEMPORARIES`: born in the backward or in the optimiser's step, gradients of activations above all.
    """

    PARAMETERS = "parameters"
    GRADIENTS = "gradients"
    OPTIMIZER_STATE = "optimizer_state"
    INPUTS = "inputs"
    ACTIVATIONS = "activations"
    TEMPORARIES = "temporaries"


@dataclass(frozen=True)
class MemoryReport:
    """The most memory that a training step took at once.

    `peak_bytes` is the largest sum over all kinds, and `at_peak` how it was shared then. On CUDA it is the allocator's:
    that holds the work space of kernels too, so it may be above the sum of `at_peak`, which is always counted.
    `peak_activation_bytes` is the largest sum of activations and temporaries: what checkpointing lowers, reached at a
    moment of its own.
    """

    peak_bytes: int
    at_peak: Mapping[Kind, int]
    peak_activation_bytes: int

    def larger(self, other: MemoryReport) -> MemoryReport:
        """Of this and what came before or after it: each peak from where it is higher."""
        higher = self if self.peak_bytes >= other.peak_bytes else other
        activation_bytes = max(self.peak_activation_bytes, other.peak_activation_bytes)
        return replace(higher, peak_activation_bytes=activation_bytes)
