"""Export a model as a program that runs without Aerofuse: ONNX, or torch's own `.pt2`."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from aerofuse.data.labels import CLASSIFICATION_TASKS
from aerofuse.inference.package import Preprocessing
from aerofuse.inference.unfamiliarity import SCORE, UNFAMILIAR_ABOVE, Unfamiliarity
from aerofuse.models.aircraft_model import AircraftModel
from aerofuse.models.files import ModelRecord

INPUT = "images"
FILES = {"onnx": "model.onnx", "torch": "model.pt2"}
_NEEDED = ("onnx", "onnxscript", "onnxruntime")
_TALKATIVE = ("onnxscript", "onnx_ir")  # they log a line for every operation that they simplify
_BATCH = "batch"


class Exported(nn.Module):
    """Map uint8 RGB `[B, 3, H, W]` to calibrated `{task}_probabilities` `[B, C]` and values `[B]` in 0..1.

    With `unfamiliarity`, `unfamiliar_score` is one of the values.
    """

    def __init__(
        self, model: AircraftModel, temperatures: Mapping[str, float], unfamiliarity: Unfamiliarity | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.temperatures = dict(temperatures)
        self.unfamiliarity = unfamiliarity

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        outputs, features = self.model.outputs_and_features(images)
        found = {
            output_name(task): (output / self.temperatures[task]).softmax(dim=1)
            if task in self.temperatures
            else output
            for task, output in outputs.items()
        }
        return found if self.unfamiliarity is None else found | {SCORE: self.unfamiliarity(features)}


def output_name(task: str) -> str:
    """Return the name of a task's output, such as `type_probabilities` or `clarity`."""
    return f"{task}_probabilities" if task in CLASSIFICATION_TASKS else task


def export_program(
    model: AircraftModel, record: ModelRecord, unfamiliarity: Unfamiliarity | None = None
) -> ExportedProgram:
    """Export the model as a graph, for batches of any size."""
    side_px = record.image_size_px
    # Zeros, because the file keeps the example; two images, because torch would fix a batch size of 1.
    example = torch.zeros(2, 3, side_px, side_px, dtype=torch.uint8)
    program = Exported(model, record.temperatures, unfamiliarity).eval()
    with torch.no_grad():
        return torch.export.export(program, (example,), dynamic_shapes={INPUT: {0: Dim(_BATCH)}})


def write_torch(program: ExportedProgram, record: ModelRecord, path: Path) -> None:
    """Write a `.pt2`, which `torch.export.load(path).module()` reads; `model.json` in it holds `facts`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.export.save(program, path, extra_files={"model.json": json.dumps(facts(program, record), ensure_ascii=False)})


def write_onnx(program: ExportedProgram, record: ModelRecord, path: Path) -> None:
    """Write an ONNX file, the same bytes for the same model; its metadata holds `facts` as JSON.

    Raises `ValueError` where ONNX is not installed.
    """
    require_onnx()
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    names = _output_names(program)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces new names of its own functions
        written = torch.onnx.export(
            program,
            dynamo=True,
            input_names=[INPUT],
            output_names=names,
            dynamic_shapes={INPUT: {0: _BATCH}},
            verbose=False,
        )
    assert written is not None
    for name, fact in facts(program, record).items():
        written.model.metadata_props[name] = json.dumps(fact, ensure_ascii=False)
    written.save(path)


def _output_names(program: ExportedProgram) -> list[str]:
    """Return the names of the outputs, in order."""
    spec = program.call_spec.out_spec
    assert spec is not None
    return [str(name) for name in spec.context]


def facts(program: ExportedProgram, record: ModelRecord) -> dict[str, Any]:
    """Return what whoever runs the file needs to know: class names, how to prepare a photo, what is unfamiliar."""
    preprocessing = Preprocessing.of(record)
    unfamiliar = {"unfamiliar_above": UNFAMILIAR_ABOVE} if SCORE in _output_names(program) else {}
    return unfamiliar | {
        "types": list(record.classes.types),
        "airlines": list(record.classes.airlines),
        "preprocessing": asdict(preprocessing),
        "preprocessing_steps": preprocessing.steps(),
    }


def require_onnx() -> None:
    """Check that the extra `export` is installed. Raises `ValueError` with the remedy where it is not."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ValueError(f"ONNX needs {', '.join(missing)}: pip install 'aerofuse[export]'")
