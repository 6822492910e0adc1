"""Aerofuse: fine-grained aircraft recognition with a fused ConvNeXt and Swin Transformer.

Public are `load`, `plan_checkpointing` and what `aerofuse.backbones` exports; all else may change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aerofuse.inference.predictor import load_predictor as load
    from aerofuse.planning.planner import plan_checkpointing

__all__ = ["load", "plan_checkpointing"]


def __getattr__(name: str) -> object:
    """Import a public function when it is first asked for: every module of the package imports this one first."""
    if name == "load":
        from aerofuse.inference.deferred_compiler import deferred_compiler

        with deferred_compiler():
            from aerofuse.inference.predictor import load_predictor
        return load_predictor
    if name == "plan_checkpointing":
        from aerofuse.planning.planner import plan_checkpointing

        return plan_checkpointing
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public are {', '.join(__all__)}")
