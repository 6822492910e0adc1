"""A model as a program of its own, which runs without Aerofuse: ONNX, or torch's own `.pt2`."""

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

from aerofuse.inference.package import Preprocessing
from aerofuse.models.aircraft_model import AircraftModel
from aerofuse.models.files import ModelRecord

INPUT = "images"
FILES = {"onnx": "model.onnx", "torch": "model.pt2"}
_NEEDED = ("onnx", "onnxscript", "onnxruntime")
_TALKATIVE = ("onnxscript", "onnx_ir")  # a line for every operation that they simplify
_BATCH = "batch"


class Exported(nn.Module):
    """uint8 RGB `[B, 3, H, W]` to calibrated `{task}_probabilities` `[B, C]`, and values `[B]` in 0..1."""

    def __init__(self, model: AircraftModel, temperatures: Mapping[str, float]) -> None:
        super().__init__()
        self.model = model
        self.temperatures = dict(temperatures)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {
            output_name(task): (output / self.temperatures[task]).softmax(dim=1)
            if task in self.temperatures
            else output
            for task, output in self.model(images).items()
        }


def output_name(task: str) -> str:
    """What a task's output is called: `type_probabilities`, `clarity`."""
    return f"{task}_probabilities" if task in ("type", "airline") else task


def export_program(model: AircraftModel, record: ModelRecord) -> ExportedProgram:
    """The model as a graph, for batches of any size."""
    side_px = record.image_size_px
    # Zeros, and two of them: what is given as an example is kept in the file, and a batch of 1 would be taken for all.
    example = torch.zeros(2, 3, side_px, side_px, dtype=torch.uint8)
    program = Exported(model, record.temperatures).eval()
    with torch.no_grad():
        return torch.export.export(program, (example,), dynamic_shapes={INPUT: {0: Dim(_BATCH)}})


def write_torch(program: ExportedProgram, record: ModelRecord, path: Path) -> None:
    """Write a `.pt2`, which `torch.export.load(path).module()` reads; `model.json` in it has what `facts` says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.export.save(program, path, extra_files={"model.json": json.dumps(facts(record), ensure_ascii=False)})


def write_onnx(program: ExportedProgram, record: ModelRecord, path: Path) -> None:
    """Write an ONNX file, the same bytes for the same model; its metadata has what `facts` says, as JSON.

    Raises `ValueError` where the packages that this needs are not installed.
    """
    require_onnx()
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    names = [output_name(task) for task in record.architecture.tasks]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what torch will call otherwise one day
        written = torch.onnx.export(
            program,
            dynamo=True,
            input_names=[INPUT],
            output_names=names,
            dynamic_shapes={INPUT: {0: _BATCH}},
            verbose=False,
        )
    assert written is not None
    for name, fact in facts(record).items():
        written.model.metadata_props[name] = json.dumps(fact, ensure_ascii=False)
    written.save(path)


def facts(record: ModelRecord) -> dict[str, Any]:
    """What a program that runs the file has to know: the names of the classes, and what to do with a photo before."""
    return {
        "types": list(record.classes.types),
        "airlines": list(record.classes.airlines),
        "preprocessing": asdict(Preprocessing(record.image_size_px)),
    }


def require_onnx() -> None:
    """Raises `ValueError` with the remedy where the extra `export` is not installed."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ValueError(f"ONNX needs {', '.join(missing)}: pip install 'aerofuse[export]'")
