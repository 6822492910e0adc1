"""Every model as ONNX and as a torch program: the same answers, for batches of any size."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from aerofuse.data.labels import TASKS
from aerofuse.inference import export
from aerofuse.inference.export import Exported, export_program, output_name, write_onnx, write_torch
from aerofuse.inference.export_check import TOLERANCE, onnx_runner, torch_runner
from aerofuse.inference.package import load_package
from tests.inference.small_packages import ARCHITECTURES, CLASSES, write_model

# Each takes a quarter of a minute. The two have every kind of part.
ALWAYS = ("single_task", "attention")
MODELS = [name if name in ALWAYS else pytest.param(name, marks=pytest.mark.large) for name in ARCHITECTURES]


@pytest.mark.parametrize("name", MODELS)
def test_the_files_say_what_the_model_says(name: str, tmp_path: Path) -> None:
    model, record = load_package(write_model(tmp_path / "model", name, confident=True))
    program = export_program(model, record)
    write_torch(program, record, tmp_path / "model.pt2")
    write_onnx(program, record, tmp_path / "model.onnx")
    ways = {
        "onnx": onnx_runner(tmp_path / "model.onnx"),
        "torch": torch_runner(torch.export.load(tmp_path / "model.pt2").module()),
    }
    expected_by = torch_runner(Exported(model, record.temperatures).eval())
    generator = torch.Generator().manual_seed(0)
    for batch_size in (1, 3, 16):
        images = torch.randint(0, 256, (batch_size, 3, 96, 96), dtype=torch.uint8, generator=generator)
        expected = expected_by(images)
        assert list(expected) == [output_name(task) for task in TASKS if task in ARCHITECTURES[name].tasks]
        for way, run in ways.items():
            found = run(images)
            assert found.keys() == expected.keys(), way
            for output, values in expected.items():
                assert found[output].shape == values.shape
                assert abs(found[output] - values).max() < TOLERANCE, (way, output)
                if output.endswith("_probabilities"):
                    assert found[output].sum(axis=1) == pytest.approx(1.0, abs=1e-5)
                    assert (found[output].argmax(axis=1) == values.argmax(axis=1)).all(), (way, output)
    _check_facts(tmp_path)


def _check_facts(folder: Path) -> None:
    """What a program that reads the files needs to know stands in them."""
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    extra: dict[str, Any] = {"model.json": ""}
    torch.export.load(folder / "model.pt2", extra_files=extra)
    facts = json.loads(extra["model.json"])
    assert {name: json.loads(text) for name, text in metadata.items()} == facts
    assert facts["types"] == list(CLASSES.types)
    assert facts["airlines"] == list(CLASSES.airlines)
    assert facts["preprocessing"]["image_size_px"] == 96
    (images,) = session.get_inputs()
    assert (images.name, images.type, images.shape) == ("images", "tensor(uint8)", ["batch", 3, 96, 96])


def test_probabilities_are_calibrated(tmp_path: Path) -> None:
    model, record = load_package(write_model(tmp_path, "single_task", confident=True))
    images = torch.randint(0, 256, (4, 3, 96, 96), dtype=torch.uint8)
    with torch.no_grad():
        found = Exported(model, record.temperatures)(images)["type_probabilities"]
        assert torch.allclose(found, (model(images)["type"] / record.temperatures["type"]).softmax(dim=1))
        assert not torch.allclose(found, model(images)["type"].softmax(dim=1), atol=1e-3)


@pytest.mark.parametrize("needs", [export.require_onnx, lambda: onnx_runner(Path("model.onnx"))])
def test_a_missing_extra_is_named_with_the_remedy(needs: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(ValueError, match=r"ONNX needs onnxscript: pip install 'aerofuse\[export\]'"):
        needs()
