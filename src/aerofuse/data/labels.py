"""The four tasks, the class lists, and how labels become targets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from aerofuse.common.files import read_json, write_json

CLASSIFICATION_TASKS = ("type", "airline")
REGRESSION_TASKS = ("clarity", "block")
TASKS = CLASSIFICATION_TASKS + REGRESSION_TASKS

MISSING_CLASS = -1  # the class index of a label that is not known; a missing regression label is NaN


@dataclass(frozen=True)
class ClassLists:
    """The names behind the class indices of `type` and `airline`, in index order."""

    types: tuple[str, ...]
    airlines: tuple[str, ...]

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read `types.json` and `airlines.json`. Raises `FileNotFoundError`, or `ValueError` for names listed twice."""
        return cls(_read_class_list(folder / "types.json"), _read_class_list(folder / "airlines.json"))

    @property
    def by_task(self) -> dict[str, tuple[str, ...]]:
        """Return the names of each classification task."""
        return {"type": self.types, "airline": self.airlines}

    def save(self, folder: Path) -> None:
        """Write `types.json` and `airlines.json`, each `{"classes": [...], "num_classes": N}`."""
        for name, classes in (("types", self.types), ("airlines", self.airlines)):
            write_json(folder / f"{name}.json", {"classes": classes, "num_classes": len(classes)})


def _read_class_list(path: Path) -> tuple[str, ...]:
    content = read_json(path)
    classes = tuple(content["classes"])
    if len(classes) != content["num_classes"] or len(set(classes)) != len(classes):
        raise ValueError(f"{path}: num_classes is {content['num_classes']}, with {len(set(classes))} different names")
    return classes


def make_targets(row: Mapping[str, Any], classes: ClassLists) -> dict[str, Tensor]:
    """Return one photo's labels as scalar tensors: int64 class index or -1, float32 in 0..1 or NaN."""
    return {
        "type": _class_index(row["typename"], classes.types),
        "airline": _class_index(row["airlinename"], classes.airlines),
        "clarity": _value(row["clarity"]),
        "block": _value(row["block"]),
    }


def _class_index(name: str | None, names: tuple[str, ...]) -> Tensor:
    return torch.tensor(MISSING_CLASS if name is None else names.index(name), dtype=torch.int64)


def _value(label: float | None) -> Tensor:
    return torch.tensor(math.nan if label is None else label, dtype=torch.float32)
