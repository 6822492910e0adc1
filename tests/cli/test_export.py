from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from aerofuse.cli.main import main
from aerofuse.inference import export
from tests.inference.small_packages import CLASSES, write_small_package


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_small_package(tmp_path_factory.mktemp("packages") / "package", "single_task"))


def test_onnx(package: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import onnx

    assert main(["export", "--format", "onnx", "--model", package, "--output", str(tmp_path / "new")]) == 0
    path = tmp_path / "new/model.onnx"
    assert f"{path} is written" in capsys.readouterr().out
    onnx.checker.check_model(path, full_check=True)


def test_torch(package: str, tmp_path: Path) -> None:
    assert main(["export", "--format", "torch", "--model", package, "--output", str(tmp_path)]) == 0
    extra: dict[str, Any] = {"model.json": ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=extra).module()
    assert json.loads(extra["model.json"])["types"] == list(CLASSES.types)
    found = program(torch.zeros(5, 3, 96, 96, dtype=torch.uint8))
    assert found["type_probabilities"].shape == (5, len(CLASSES.types))


def test_without_the_extra(
    package: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    assert main(["export", "--format", "onnx", "--model", package, "--output", str(tmp_path)]) == 2
    assert "pip install 'aerofuse[export]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_mistakes(package: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["export", "--format", "torch", "--model", package, "--output", str(tmp_path / "file")]) == 2
    assert str(tmp_path / "file") in capsys.readouterr().err
    assert main(["export", "--format", "onnx", "--model", str(tmp_path)]) == 2
    assert "it has no model.json" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(["export", "--format", "tensorflow"])
    assert stopped.value.code == 2
    assert "invalid choice: 'tensorflow'" in capsys.readouterr().err
