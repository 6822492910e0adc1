"""A trained model as a folder: its weights in `model.safetensors`, and in `model.json` how to build it again."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from aerofuse.common.files import load_into, load_weights, save_weights, write_atomically
from aerofuse.data.labels import CLASSIFICATION_TASKS, ClassLists
from aerofuse.data.photo import Fit
from aerofuse.models.aircraft_model import AircraftModel
from aerofuse.models.architecture import Architecture

WEIGHTS_FILE = "model.safetensors"
RECORD_FILE = "model.json"


@dataclass(frozen=True)
class ModelRecord:
    """What is known of a trained model besides its weights.

    `temperatures` are those of the classification heads, fitted on the validation split. `fit` says how the photos
    that it was trained on became square.
    """

    architecture: Architecture
    classes: ClassLists
    stage: str
    epoch: int
    validation: Mapping[str, float]
    temperatures: Mapping[str, float] = field(default_factory=dict)
    fit: Fit = "letterbox"  # older records do not say it

    @property
    def image_size_px(self) -> int:
        """Return the side of the square images that the model was trained on."""
        return self.architecture.image_size_px

    @property
    def calibrated_tasks(self) -> tuple[str, ...]:
        """Return the tasks of the model that need a temperature."""
        return tuple(task for task in self.architecture.tasks if task in CLASSIFICATION_TASKS)


def save_model(folder: Path, weights: Mapping[str, Tensor], record: ModelRecord) -> None:
    """Write a model; each file is replaced whole or not at all."""
    save_weights(folder / WEIGHTS_FILE, weights)
    write_record(folder, record)


def write_record(folder: Path, record: ModelRecord, more: Mapping[str, object] | None = None) -> None:
    """Write `model.json`, whole or not at all, with `more` that a reader may want to know."""
    content = json.dumps(dataclasses.asdict(record) | dict(more or {}), indent=2, ensure_ascii=False)
    write_atomically(folder / RECORD_FILE, (content + "\n").encode())


def read_record(folder: Path) -> ModelRecord:
    """Read `model.json`. Raises `FileNotFoundError`, or `ValueError` where it is not the record of a model."""
    path = folder / RECORD_FILE
    content = read_record_file(folder)
    if "temperatures" not in content and "epoch" in content:
        raise ValueError(f"{path} has no temperatures: an older aerofuse made it; `dvc repro` makes it again")
    try:
        record = TypeAdapter(ModelRecord).validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        raise ValueError(f"{path} is not the record of a model: {describe(error)}") from None
    for task, temperature in record.temperatures.items():
        if not 0 < temperature < math.inf:
            raise ValueError(f"{path}: the temperature of {task} is {temperature}; it must be above 0")
    return record


def read_record_file(folder: Path) -> dict[str, object]:
    """Read `model.json` as plain values, which nobody has checked. Raises as `read_record` does."""
    path = folder / RECORD_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"no model in {folder}: it has no {RECORD_FILE}; `dvc repro` makes it, `dvc pull` gets it"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # not JSON, or not text
        raise ValueError(f"{path} is not the record of a model: {error}; fetch or make it again") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not the record of a model: it is a {type(content).__name__}")
    return content


def describe(error: ValidationError) -> str:
    """Return what is wrong with a record, in one line."""
    return "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())


def load_model(folder: Path) -> tuple[AircraftModel, ModelRecord]:
    """Load a model with its weights, on CPU and in evaluation mode, and its record.

    Raises `FileNotFoundError` or `ValueError` where a file is missing, damaged, or does not fit the other.
    """
    record = read_record(folder)
    model = record.architecture.build(record.classes)
    weights = load_weights(folder / WEIGHTS_FILE)
    _check_class_lists(folder, record, weights)
    load_into(model, weights, str(folder / WEIGHTS_FILE))
    return model.eval(), record


def _check_class_lists(folder: Path, record: ModelRecord, weights: Mapping[str, Tensor]) -> None:
    for task, names in record.classes.by_task.items():
        bias = weights.get(f"heads.{task}_head.1.bias")  # its length is the head's number of classes
        if len(set(names)) < len(names):
            raise ValueError(f"{folder / RECORD_FILE} names a class of {task} twice")
        if bias is not None and len(bias) != len(names):
            raise ValueError(
                f"{folder / RECORD_FILE} lists {len(names)} classes of {task}, and {WEIGHTS_FILE} knows {len(bias)}: "
                "they are of different models; fetch or make both again"
            )
