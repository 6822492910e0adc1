"""A trained model as a folder: `model.safetensors` and `model.json`, which says how to build it again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aerofuse.data.labels import ClassLists
from aerofuse.models.architecture import Architecture
from aerofuse.models.parts import AircraftModel
from aerofuse.weight_files import load_into, load_weights, save_weights, write_atomically

WEIGHTS_FILE = "model.safetensors"
RECORD_FILE = "model.json"


@dataclass(frozen=True)
class ModelRecord:
    """What is known of a trained model besides its weights."""

    architecture: Architecture
    classes: ClassLists
    stage: str
    epoch: int
    validation: Mapping[str, float]

    @property
    def image_size_px(self) -> int:
        """The side of the square images that the model was trained on."""
        return self.architecture.image_size_px


def save_model(folder: Path, model: AircraftModel, record: ModelRecord) -> None:
    """Write a model. Each file is replaced whole or not at all."""
    save_weights(folder / WEIGHTS_FILE, model.state_dict())
    text = json.dumps(dataclasses.asdict(record), indent=2, ensure_ascii=False)
    write_atomically(folder / RECORD_FILE, (text + "\n").encode())


def read_record(folder: Path) -> ModelRecord:
    """Read `model.json`. Raises `FileNotFoundError`, or `ValueError` where it is no record of a model."""
    path = folder / RECORD_FILE
    if not path.is_file():
        raise FileNotFoundError(f"no model in {folder}: it has no {RECORD_FILE}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        architecture = content["architecture"]
        return ModelRecord(
            architecture=Architecture(**architecture | {"tasks": tuple(architecture["tasks"])}),
            classes=ClassLists(**{name: tuple(names) for name, names in content["classes"].items()}),
            stage=content["stage"],
            epoch=content["epoch"],
            validation=content["validation"],
        )
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not the record of a model: {error!r}") from None


def load_model(folder: Path) -> tuple[AircraftModel, ModelRecord]:
    """A model with its weights, on CPU, in evaluation mode, and its record.

    Raises `FileNotFoundError` or `ValueError` where a file is missing, damaged, or does not fit the other.
    """
    record = read_record(folder)
    model = record.architecture.build(record.classes)
    load_into(model, load_weights(folder / WEIGHTS_FILE), str(folder / WEIGHTS_FILE))
    return model.eval(), record
