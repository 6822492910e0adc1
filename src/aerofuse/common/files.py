"""Files: results as JSON that reads well in a diff, weights as safetensors, and atomic writing."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn


def write_json(path: Path, content: object) -> None:
    """Write `content` as JSON: indented, in its own order, floats with 6 significant digits, a newline at the end.

    The same content gives the same bytes. Raises `ValueError` for NaN and infinity, which JSON does not have.
    """
    text = json.dumps(_rounded(content), indent=2, ensure_ascii=False, allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises `FileNotFoundError`, or `ValueError` where it is not JSON."""
    if not path.is_file():
        raise FileNotFoundError(f"no {path} here ({Path.cwd()}); `dvc repro` makes it")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a file as a whole: after a crash or on a full disk, `path` still has its old content.

    Raises `OSError` where the file cannot be written.
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


def _rounded(content: object) -> object:
    if isinstance(content, dict):
        return {key: _rounded(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_rounded(value) for value in content]
    if isinstance(content, float | np.floating):
        return float(f"{content:.6g}")
    return content


def _listed(names: list[str], limit: int = 8) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
