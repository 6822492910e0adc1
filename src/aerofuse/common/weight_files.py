"""Weights on disk: safetensors, written whole or not at all, loaded strictly."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that `path` is either the old content or all of the new, also on a full disk or a crash.

    Raises `OSError` where it cannot be written; the old file is then still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def save_weights(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, atomically; the same tensors give the same bytes."""
    write_atomically(path, save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}))


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file. Raises `FileNotFoundError`, or `ValueError` where it is truncated or foreign."""
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path} ({path.stat().st_size} bytes) is not a whole safetensors file: {error}; fetch or make it again"
        ) from None


def load_into(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load weights strictly. Raises `ValueError` listing what is missing, unexpected, or of another shape."""
    own = module.state_dict()
    missing = sorted(own.keys() - state.keys())
    unexpected = sorted(state.keys() - own.keys())
    reshaped = [
        f"{name} {list(state[name].shape)} instead of {list(own[name].shape)}"
        for name in sorted(own.keys() & state.keys())
        if own[name].shape != state[name].shape
    ]
    if missing or unexpected or reshaped:
        raise ValueError(
            f"{what} does not fit {type(module).__name__}:"
            f"\n  missing: {_listed(missing)}\n  unexpected: {_listed(unexpected)}\n  other shape: {_listed(reshaped)}"
        )
    with torch.no_grad():
        module.load_state_dict(dict(state), strict=True)


def _listed(names: list[str], limit: int = 8) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
