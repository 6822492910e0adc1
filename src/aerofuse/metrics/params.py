"""What `evaluate`, `export`, `explain` and `compare` are told."""

from __future__ import annotations

from pydantic import Field

from aerofuse.common.params import Section


class EvaluateParams(Section):
    """How a model is run over the test split, and how often for its latency."""

    batch_size: int = Field(ge=1)
    latency_runs: int = Field(ge=1, description="timed single-image passes, after warming up")


class ExportParams(Section):
    """What is measured of the exported model; the recipe's `evaluate` says how."""

    time_torch_compile: bool


class ExplainParams(Section):
    """How many of the hybrid's mistakes are explained."""

    mistakes: int = Field(ge=0, le=20, description="photos each of wrong types, of clarity and of block")


class CompareParams(Section):
    """How the models are compared."""

    confidence_level: float = Field(gt=0.5, lt=1)
    bootstrap_samples: int = Field(ge=100)
    stop_on_failed_gate: bool
