"""Every model as ONNX and as a torch program: the same answers, for batches of any size."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image, ImageOps

import aerofuse
from aerofuse.data.labels import TASKS
from aerofuse.data.photo import Fit
from aerofuse.inference import export
from aerofuse.inference.export import Exported, export_program, output_name, write_onnx, write_torch
from aerofuse.inference.export_check import TOLERANCE, onnx_runner, torch_runner
from aerofuse.inference.package import Preprocessing, load_package
from aerofuse.inference.unfamiliarity import SCORE, UNFAMILIAR_ABOVE
from tests.inference.small_packages import ARCHITECTURES, CLASSES, measured, write_model


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_files_say_what_the_model_says(name: str, tmp_path: Path) -> None:
    trained = write_model(tmp_path / "model", name, confident=True)
    model, record = load_package(trained)
    statistics = measured(trained)
    program = export_program(model, record, statistics)
    write_torch(program, record, tmp_path / "model.pt2")
    write_onnx(program, record, tmp_path / "model.onnx")
    ways = {
        "onnx": onnx_runner(tmp_path / "model.onnx"),
        "torch": torch_runner(torch.export.load(tmp_path / "model.pt2").module()),
    }
    expected_by = torch_runner(Exported(model, record.temperatures, statistics).eval())
    generator = torch.Generator().manual_seed(0)
    for batch_size in (1, 3, 16):
        images = torch.randint(0, 256, (batch_size, 3, 96, 96), dtype=torch.uint8, generator=generator)
        expected = expected_by(images)
        names = [output_name(task) for task in TASKS if task in ARCHITECTURES[name].tasks]
        assert list(expected) == [*names, SCORE]
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
    assert facts["unfamiliar_above"] == UNFAMILIAR_ABOVE
    (images,) = session.get_inputs()
    assert (images.name, images.type, images.shape) == ("images", "tensor(uint8)", ["batch", 3, 96, 96])


def _prepared(path: Path, how: dict[str, Any]) -> npt.NDArray[np.uint8]:
    """A photo as `preprocessing_steps` says, with Pillow alone: what a program does that has nothing but the file."""
    side_px = how["image_size_px"]
    with Image.open(path) as file:
        stored_pixels = file.width * file.height
        file.draft("RGB", (how["jpeg_sides"] * side_px, how["jpeg_sides"] * side_px))  # does nothing to what is no JPEG
        is_progressive = "progressive" in file.info
        image: Image.Image = file.copy()
    if (stored_pixels if is_progressive else image.width * image.height) > how["reduced_above_pixels"]:
        image = image.reduce(max(min(image.size) // (how["reduced_sides"] * side_px), 1))
    image = ImageOps.exif_transpose(image)
    if "A" in image.getbands():
        image = Image.alpha_composite(Image.new("RGBA", image.size, how["transparent_on"]), image)
    image = image.convert("RGB")
    image = image.crop((0, 0, image.width, image.height - how["banner_px"]))
    square = _fitted(image, how)
    for _ in range(how["jpeg_writes"]):
        written = io.BytesIO()
        square.save(written, "JPEG", quality=how["jpeg_quality"], subsampling=how["jpeg_chroma"])
        square = Image.open(written).convert("RGB")
    return np.asarray(square)


def _fitted(image: Image.Image, how: dict[str, Any]) -> Image.Image:
    side_px, resampling = how["image_size_px"], Image.Resampling[how["interpolation"].upper()]
    if how["fit"] == "stretch":
        return image.resize((side_px, side_px), resampling)
    if how["fit"] == "crop":
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        return image.crop((left, top, left + side, top + side)).resize((side_px, side_px), resampling)
    assert how["fit"] == "letterbox"
    scale = side_px / max(image.size)
    fitted = image.resize([round(edge * scale) for edge in image.size], resampling)
    square = Image.new("RGB", (side_px, side_px), tuple(how["padding_rgb"]))
    square.paste(fitted, (round((side_px - fitted.width) / 2), round((side_px - fitted.height) / 2)))
    return square


@pytest.mark.parametrize("fit", get_args(Fit))
def test_a_program_that_follows_the_metadata_alone_gets_the_same_answers(fit: Fit, tmp_path: Path) -> None:
    import onnxruntime

    model, record = load_package(write_model(tmp_path / "model", "multi_task", confident=True, fit=fit))
    write_onnx(export_program(model, record), record, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    metadata = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
    assert "unfamiliar_above" not in metadata
    names = [output.name for output in session.get_outputs()]
    predictor = aerofuse.load(tmp_path / "model")
    for path in _odd_photos(tmp_path):
        images = _prepared(path, metadata["preprocessing"]).transpose(2, 0, 1)[np.newaxis]
        found = dict(zip(names, session.run(None, {"images": images}), strict=True))
        expected = predictor.predict(path)
        assert expected.type is not None
        assert expected.airline is not None
        assert found["type_probabilities"][0, metadata["types"].index(expected.type)] == pytest.approx(
            expected.type_confidence, abs=1e-3
        ), path.name
        assert found["airline_probabilities"][0, metadata["airlines"].index(expected.airline)] == pytest.approx(
            expected.airline_confidence, abs=1e-3
        ), path.name
        assert found["clarity"][0] == pytest.approx(expected.clarity, abs=1e-3)
        assert found["block"][0] == pytest.approx(expected.block, abs=1e-3)


def _odd_photos(folder: Path) -> list[Path]:
    """A large JPEG, a turned one, a transparent one, and one of so many pixels that it is reduced."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (51, 77, 3), dtype=np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    noise.resize((1001, 667), Image.Resampling.BICUBIC).save(folder / "large.jpg", quality=90)
    noise.resize((777, 333)).save(folder / "turned.jpg", exif=turned)
    transparent = noise.resize((101, 53)).convert("RGBA")
    transparent.putalpha(noise.convert("L").resize((101, 53)))
    transparent.save(folder / "transparent.png")
    noise.resize((8003, 4007), Image.Resampling.NEAREST).save(folder / "reduced.png", compress_level=1)
    return [folder / name for name in ("large.jpg", "turned.jpg", "transparent.png", "reduced.png")]


@pytest.mark.parametrize(("fit", "words"), [("crop", "Cut out the square"), ("stretch", "Its shape changes")])
def test_the_steps_are_those_of_the_fit(fit: Fit, words: str) -> None:
    steps = " ".join(Preprocessing(96, fit=fit).steps())
    assert words in steps
    assert "padding_rgb" not in steps


def test_every_value_of_the_preprocessing_is_explained() -> None:
    words = " ".join(Preprocessing(96).steps()).lower()
    for field in dataclasses.fields(Preprocessing):
        value = getattr(Preprocessing(96), field.name)
        assert field.name in words or str(value).lower() in words or field.name in ("fit", "mean", "std"), field.name


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
