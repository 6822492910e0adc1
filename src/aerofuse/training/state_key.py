"""The key of a training's state: parameters, code and data, as dvc.yaml lists them for the stage."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from aerofuse.common.params import load_value

DVC_FILE = Path("dvc.yaml")
_LENGTH = 16  # of the key, in hexadecimal digits
_LEFT_OUT = ("__pycache__",)


def find_training_key(stage: str, **found: object) -> str:
    """Equal for two trainings of a stage that give the same model, whatever happens to them on the way.

    What the stage depends on by dvc.yaml, file by file, its parameters as resolved now, and what was `found` before
    training, as the batch size. Raises `FileNotFoundError` for a dependency that is not there, and `ValueError` where
    dvc.yaml has no such stage.
    """
    content = YAML(typ="safe").load(DVC_FILE.read_text(encoding="utf-8"))
    if stage not in content["stages"]:
        raise ValueError(f"{DVC_FILE} has no stage {stage!r}")
    definition = content["stages"][stage]
    digest = hashlib.sha256(json.dumps(found, sort_keys=True, default=str).encode())
    for name in definition["params"]:
        value = load_value(Any, name.replace("${recipe}", "{recipe}"))
        digest.update(json.dumps([name, value], sort_keys=True, default=str).encode())
    for name in definition["deps"]:
        for path in _files(Path(name)):
            digest.update(path.as_posix().encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:_LENGTH]


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from sorted(file for file in path.rglob("*") if file.is_file() and not set(_LEFT_OUT) & set(file.parts))
    elif path.is_file():
        yield path
    else:
        raise FileNotFoundError(f"{path}, which {DVC_FILE} says that the stage depends on, is not there")
