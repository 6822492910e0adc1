from __future__ import annotations

import errno
import io
import json
from pathlib import Path

import pytest
import torch

from aerofuse.data.labels import TASKS, ClassLists
from aerofuse.models.architecture import hybrid_architecture
from aerofuse.models.files import ModelRecord, load_model, save_model

CLASSES = ClassLists(("A320", "737"), ("Ærø",))
RECORD = ModelRecord(
    hybrid_architecture("convnext_thin", "swin_thin", "add", 0.1, 0.0, 96), CLASSES, "train_stage_c", 3, {"score": 0.5}
)


def test_a_saved_model_computes_the_same(tmp_path: Path) -> None:
    model = RECORD.architecture.build(CLASSES).eval()
    save_model(tmp_path, model.state_dict(), RECORD)
    loaded, record = load_model(tmp_path)
    assert record == RECORD
    assert not loaded.training
    images = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    for task in TASKS:
        assert torch.equal(loaded(images)[task], model(images)[task])


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    model = RECORD.architecture.build(CLASSES)
    for folder in ("one", "two"):
        save_model(tmp_path / folder, model.state_dict(), RECORD)
    for name in ("model.safetensors", "model.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    save_model(tmp_path, RECORD.architecture.build(CLASSES).state_dict(), RECORD)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"model\.safetensors \(1000 bytes\) is not a whole safetensors file"):
        load_model(tmp_path)


def test_weights_of_another_model_are_refused_with_the_differences(tmp_path: Path) -> None:
    other = hybrid_architecture("convnext_thin", "swin_thin", "attention", 0.1, 0.0, 96)
    save_model(tmp_path, other.build(CLASSES).state_dict(), RECORD)
    with pytest.raises(ValueError, match=r"(?s)missing: none.*unexpected: fusion\.cnn_projection\.bias"):
        load_model(tmp_path)


def test_a_foreign_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no model\.json"):
        load_model(tmp_path)
    for content in ('{"architecture": {}}', "[]", '"text"', "{"):
        (tmp_path / "model.json").write_text(content)
        with pytest.raises(ValueError, match="not the record of a model"):
            load_model(tmp_path)


def test_a_record_of_before_calibration_is_refused_with_the_remedy(tmp_path: Path) -> None:
    save_model(tmp_path, RECORD.architecture.build(CLASSES).state_dict(), RECORD)
    content = json.loads((tmp_path / "model.json").read_text())
    del content["temperatures"]
    (tmp_path / "model.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"has no temperatures: an older aerofuse made it; `dvc repro` makes it again"):
        load_model(tmp_path)


class _FullDisk(io.FileIO):
    """A file on a disk that is full after 100 bytes."""

    def write(self, content: object) -> int:
        super().write(bytes(memoryview(content))[:100])  # type: ignore[arg-type]
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = RECORD.architecture.build(CLASSES)
    save_model(tmp_path, model.state_dict(), RECORD)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(Path, "open", lambda path, mode: _FullDisk(path, mode))
    with pytest.raises(OSError, match="No space left"):
        save_model(tmp_path, RECORD.architecture.build(CLASSES).state_dict(), RECORD)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
