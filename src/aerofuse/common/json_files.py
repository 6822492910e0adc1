"""Results as JSON that reads well in a diff."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np


def write_json(path: Path, content: object) -> None:
    """Write `content`: indented, in its own order, floats with 6 significant digits, a newline at the end.

    The same content gives the same bytes. Raises `ValueError` for NaN and infinity, which JSON does not have.
    """
    text = json.dumps(_rounded(content), indent=2, ensure_ascii=False, allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises `FileNotFoundError`, or `ValueError` where it is no JSON."""
    if not path.is_file():
        raise FileNotFoundError(f"no {path} here ({Path.cwd()}); `dvc repro` makes it")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None


def _rounded(content: object) -> object:
    if isinstance(content, dict):
        return {key: _rounded(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_rounded(value) for value in content]
    if isinstance(content, float | np.floating):
        return float(f"{content:.6g}")
    return content
