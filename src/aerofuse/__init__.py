"""Aerofuse: fine-grained aircraft recognition with a fused ConvNeXt and Swin Transformer.

Public are `load`, `plan_checkpointing`, the two functions that switch gradient checkpointing, and what
`aerofuse.backbones` exports; all else may change.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aerofuse.inference.predictor import load_predictor as load
    from aerofuse.planning.checkpointed import disable_gradient_checkpointing, enable_gradient_checkpointing
    from aerofuse.planning.planner import plan_checkpointing

_OF_PLANNING = {
    "plan_checkpointing": "aerofuse.planning.planner",
    "enable_gradient_checkpointing": "aerofuse.planning.checkpointed",
    "disable_gradient_checkpointing": "aerofuse.planning.checkpointed",
}
__all__ = ["disable_gradient_checkpointing", "enable_gradient_checkpointing", "load", "plan_checkpointing"]


def __getattr__(name: str) -> object:
    """Import a public function when it is first asked for: every module of the package imports this one first."""
    if name == "load":
        from aerofuse.inference.deferred_compiler import deferred_compiler

        with deferred_compiler():
            from aerofuse.inference.predictor import load_predictor
        return load_predictor
    if name in _OF_PLANNING:
        return getattr(import_module(_OF_PLANNING[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public are {', '.join(__all__)}")
