"""A whole training stage whose batch and budget are `auto`, without DVC."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from accelerate import Accelerator
from ruamel.yaml import YAML

from aerofuse.backbones.weights import BUNDLED_FOLDER, BackboneParams, WeightParams, prepare_weights
from aerofuse.common.files import load_weights
from aerofuse.common.hardware import DeviceMemory
from aerofuse.common.params import PARAMS_FILE, load_section, read_params_file
from aerofuse.comparison.times import MemoryRecord, TrainingTimes
from aerofuse.data.dataset import PreparedSplit, make_loader
from aerofuse.data.labels import ClassLists
from aerofuse.data.store import open_table
from aerofuse.metrics.calibration import LEAST_TEMPERATURE, MOST_TEMPERATURE
from aerofuse.metrics.collect import collect_outputs
from aerofuse.metrics.metrics import compute_metrics, validation_score
from aerofuse.models.files import load_model, read_record
from aerofuse.training import step_memory
from aerofuse.training.phases import PRETRAINED_FOLDER
from aerofuse.training.stage import PREPARED_FOLDER, RESUME_FOLDER, train_stage
from tests.imports import ROOT

pytestmark = pytest.mark.slow

MIB = 2**20


@pytest.fixture
def root(tmp_path: Path, prepared_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A repository's root before training, with the recipe `quick` at one epoch and everything on `auto`."""
    params = read_params_file()
    params["tracking"]["enabled"] = False
    recipe = params["recipes"]["quick"]
    params["training"] |= {"memory_reserve": 0.25, "largest_batch_size": 24}
    recipe["training"]["gradient_checkpointing"] = {"policy": "budget", "budget": "auto"}
    recipe["train_multi_task"] |= {"epochs": 1, "batch_size": "auto"}
    with (tmp_path / PARAMS_FILE).open("w", encoding="utf-8") as file:
        YAML().dump(params, file)
    shutil.copytree(BUNDLED_FOLDER, tmp_path / BUNDLED_FOLDER)
    (tmp_path / "data" / "prepared").symlink_to(prepared_folder)
    for name in ("dvc.yaml", "src", "stages", "data/params_checked"):  # what the key of a state covers
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    sections = (
        load_section(BackboneParams, "recipes.quick.backbones"),
        load_section(WeightParams, "recipes.quick.weights"),
    )
    prepare_weights(*sections, recipe["image_size"], PRETRAINED_FOLDER)
    yield tmp_path
    torch.use_deterministic_algorithms(False)


def test_a_stage_on_auto(root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    # 45 MiB for all that a step holds; a batch of 24 holds more without checkpointing.
    memory = DeviceMemory(total_bytes=60 * MIB, free_bytes=60 * MIB - 2 * MIB)
    monkeypatch.setattr(step_memory, "memory_of", lambda device: memory)
    report = train_stage("train_multi_task")
    times = root / "reports/times/train_multi_task.json"
    record = MemoryRecord.read(times)
    assert record.batch_size == 24
    assert record.measured == "counted in one step"
    assert record.peak_bytes == pytest.approx(record.predicted_peak_bytes, rel=0.001)
    assert record.predicted_peak_bytes <= record.available_bytes < 46 * MIB
    assert record.policy.startswith("within ")
    assert f"memory: batch 24, {record.policy}" in caplog.text
    assert "batch 24 confirmed by a real step" in caplog.text
    # What others read is as ever.
    assert TrainingTimes.read(times).images == report.images == 96
    assert json.loads(times.read_text())["peak_memory_bytes"] is None
    kept = read_record(root / "models/multi_task")
    assert kept.epoch == 1
    assert kept.temperatures.keys() == {"type", "airline"}
    assert all(LEAST_TEMPERATURE <= value <= MOST_TEMPERATURE for value in kept.temperatures.values())


def test_a_stage_that_is_run_again_goes_on_from_its_state(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As after a kill between the end of the training and DVC's note of it: outputs are gone, the state is there."""
    caplog.set_level(logging.INFO)
    train_stage("train_multi_task")
    model = root / "models/multi_task/model.safetensors"
    weights = model.read_bytes()
    record = model.with_suffix(".json").read_bytes()
    history = (root / "plots/history/train_multi_task.csv").read_bytes()
    shutil.rmtree(root / "models/multi_task")
    (root / "plots/history/train_multi_task.csv").unlink()
    report = train_stage("train_multi_task")
    assert report.resumed == 1
    assert "going on in epoch 1 of 1" in caplog.text
    assert model.read_bytes() == weights
    assert model.with_suffix(".json").read_bytes() == record
    assert (root / "plots/history/train_multi_task.csv").read_bytes() == history


def test_a_model_knows_how_its_photos_became_square(root: Path, prepared_folder: Path) -> None:
    (root / PREPARED_FOLDER).unlink()
    shutil.copytree(prepared_folder, root / PREPARED_FOLDER)
    for name in ("train", "validation"):
        table = open_table(prepared_folder / f"{name}.arrow").replace_schema_metadata({"fit": "stretch"})
        with pa.ipc.new_file(root / PREPARED_FOLDER / f"{name}.arrow", table.schema) as writer:
            writer.write_table(table)
    train_stage("train_multi_task")
    assert read_record(root / "models/multi_task").fit == "stretch"


def test_a_changed_parameter_finds_no_state(root: Path) -> None:
    train_stage("train_multi_task")
    change(root, train_multi_task={"learning_rate": 1e-4})
    assert train_stage("train_multi_task").resumed == 0
    assert len(list((root / RESUME_FOLDER / "train_multi_task").iterdir())) == 1  # the first one has ended


def test_phase_a_sees_each_photo_once_and_keeps_the_whole_hybrid(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    change(root, train_stage_a={"epochs": 3}, training={"feature_views": 2})
    report = train_stage("train_stage_a")
    assert "the frozen backbones see 96 photos 2 times" in caplog.text
    assert report.images == 3 * 96
    times = TrainingTimes.read(root / "reports/times/train_stage_a.json")
    assert 0 < times.seconds_seeing_photos <= times.seconds  # both in tenths
    # Whoever loads the model and looks at photos finds what was found by features.
    model, record = load_model(root / "models/stage_a")
    classes = ClassLists.load(PREPARED_FOLDER)
    photos = make_loader(PreparedSplit(PREPARED_FOLDER / "validation.arrow", classes), batch_size=8, num_workers=0)
    metrics = dict(compute_metrics(*collect_outputs(model, photos, Accelerator(cpu=True))))
    assert record.validation["score"] == pytest.approx(validation_score(metrics), abs=1e-4)
    assert record.epoch == report.best_epoch
    pretrained = load_weights(PRETRAINED_FOLDER / "transformer.safetensors")
    for name, value in model.backbones()["transformer"].model.state_dict().items():
        assert torch.equal(value, pretrained[name].float()), name

    caplog.clear()
    change(root, train_stage_a={"learning_rate": 1e-4})
    assert train_stage("train_stage_a").resumed == 0
    assert "the frozen backbones see" not in caplog.text
    assert TrainingTimes.read(root / "reports/times/train_stage_a.json").seconds_seeing_photos == pytest.approx(
        times.seconds_seeing_photos
    )


def change(root: Path, **sections: dict[str, object]) -> None:
    """Change sections of the recipe `quick`."""
    yaml = YAML()
    params = yaml.load((root / PARAMS_FILE).read_text(encoding="utf-8"))
    for name, values in sections.items():
        params["recipes"]["quick"][name] |= values
    with (root / PARAMS_FILE).open("w", encoding="utf-8") as file:
        yaml.dump(params, file)
