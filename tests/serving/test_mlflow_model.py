from __future__ import annotations

import ast
import os
import pickle
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest import mock

import cloudpickle
import mlflow
import pandas as pd
import pytest
import torch
from mlflow.exceptions import MlflowException

import aerofuse
from aerofuse.cli.main import main
from aerofuse.serving.limits import Limits
from aerofuse.serving.mlflow_model import REQUIREMENTS, signature, write_mlflow_model
from tests.data.odd_files import broken_second_page, damaged_avif
from tests.imports import ROOT, imported_files
from tests.inference.small_packages import write_small_package
from tests.serving.photos import as_base64, png_bomb, write_photo


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `models/aerofuse`, two photos, and `build/mlflow`, which takes three photos at a time."""
    place = tmp_path_factory.mktemp("place")
    write_small_package(place / "models/aerofuse", "attention")
    for number in (0, 1):
        write_photo(place / f"{number}.jpg", seed=number)
    write_mlflow_model(place / "models/aerofuse", place / "build/mlflow", Limits(max_photos=3))
    return place


@pytest.fixture(scope="module")
def model(place: Path) -> Any:
    return mlflow.pyfunc.load_model(str(place / "build/mlflow"))


@pytest.fixture
def _no_settings() -> Iterator[None]:
    """What the command sets for MLflow ends with the test, and so does the store that MLflow uses."""
    used = mlflow.get_tracking_uri()
    with mock.patch.dict(os.environ):
        for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT"):
            os.environ.pop(name, None)
        yield
    mlflow.set_tracking_uri(used)


def ask(model: Any, *photos: object) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = model.predict(pd.DataFrame({"image": list(photos)}, dtype=object))
    return records


def test_the_same_answers_as_predict(model: Any, place: Path) -> None:
    files = [place / "0.jpg", place / "1.jpg"]
    predictor = aerofuse.load(place / "models/aerofuse")
    expected = [result.prediction for result in predictor.predict_files(files)]
    records = ask(model, files[0].read_bytes(), as_base64(files[1].read_bytes()))
    for prediction, record in zip(expected, records, strict=True):
        assert prediction is not None
        assert record == {**prediction.to_dict(), "error": None}
    assert records[0]["clarity"] != records[1]["clarity"]
    assert records[0]["unfamiliar"] is True


def test_a_bad_photo_does_not_take_the_others_away(model: Any, place: Path) -> None:
    photo = (place / "0.jpg").read_bytes()
    bomb, good, none = ask(model, png_bomb(30_000), photo, "")
    assert good == ask(model, photo)[0]
    assert good["error"] is None
    assert "a decompression bomb?" in bomb["error"]
    assert none["error"] == "the file is empty"
    assert {name for name, value in none.items() if value} == {"error"}
    assert list(none) == list(good) == signature().outputs.input_names()


def test_damaged_inside(model: Any, place: Path) -> None:
    content = (place / "0.jpg").read_bytes()
    (record,) = ask(model, content[: len(content) // 2])
    assert record["error"].startswith("damaged or truncated")


def test_files_that_break_their_decoder_leave_the_others_their_answers(model: Any, place: Path) -> None:
    photo = (place / "0.jpg").read_bytes()
    avif, good, tiff = ask(model, damaged_avif(), photo, as_base64(broken_second_page()))
    assert good == ask(model, photo)[0]
    assert avif["error"].startswith("damaged or truncated")
    assert tiff["error"].startswith("damaged or truncated")


def test_a_request_that_is_wrong_as_a_whole(model: Any, place: Path) -> None:
    photo = (place / "0.jpg").read_bytes()
    with pytest.raises(MlflowException, match="4 photos in one request; at most 3 are taken"):
        ask(model, *[photo] * 4)
    with pytest.raises(MlflowException, match=r"missing inputs \['image'\]"):
        model.predict(pd.DataFrame({"photo": [photo]}))


def test_limits_can_be_set_where_it_is_loaded(place: Path) -> None:
    strict = mlflow.pyfunc.load_model(str(place / "build/mlflow"), model_config={"max_photo_bytes": 100})
    (record,) = ask(strict, (place / "0.jpg").read_bytes())
    assert record["error"] == "larger than 100 bytes"


def test_nothing_is_pickled(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [path.name for path in (place / "build/mlflow").rglob("*") if path.is_file()]
    assert "model.safetensors" in names
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".pt", ".pth", ".bin", ".pyc"))]

    def unpickle(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    for module, function in ((pickle, "load"), (pickle, "loads"), (cloudpickle, "load"), (torch, "load")):
        monkeypatch.setattr(module, function, unpickle)
    loaded = mlflow.pyfunc.load_model(str(place / "build/mlflow"))
    assert ask(loaded, (place / "0.jpg").read_bytes())[0]["error"] is None


def test_the_requirements_are_what_predicting_imports() -> None:
    pages = [ROOT / "src/aerofuse" / page for page in ("serving/photo_model.py", "inference/predictor.py")]
    imported = set[str]()
    for file in set().union(*map(imported_files, pages)):
        for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    found = metadata.packages_distributions()
    distributions = {name for module in imported for name in found.get(module, [])}
    itself = {"aerofuse", "mlflow-skinny", "mlflow-tracing"}  # MLflow comes in three parts
    assert distributions - itself <= set(REQUIREMENTS)


@pytest.mark.usefixtures("_no_settings")
def test_the_command_writes_and_registers(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    assert main(["mlflow", "model", "--output", "out", "--max-photos", "1", "--register", "aircraft"]) == 0
    printed = capsys.readouterr().out
    assert "mlflow models serve -m out --env-manager local -p 5001" in printed
    assert "Registered as aircraft, version 1." in printed
    mlflow.set_tracking_uri(f"sqlite:///{place / 'mlflow.db'}")
    registered = mlflow.pyfunc.load_model("models:/aircraft/1")
    photo = (place / "0.jpg").read_bytes()
    assert ask(registered, photo) == ask(mlflow.pyfunc.load_model("out"), photo)
    with pytest.raises(MlflowException, match="at most 1"):
        ask(registered, photo, photo)


@pytest.mark.usefixtures("_no_settings")
def test_a_registry_that_is_away(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    monkeypatch.chdir(place)
    assert main(["mlflow", "model", "--output", str(tmp_path / "out"), "--register", "aircraft"]) == 2
    error = capsys.readouterr().err
    assert "aerofuse: not registered at http://***@127.0.0.1:9: " in error
    assert "secret" not in error
    assert (tmp_path / "out/MLmodel").is_file()


@pytest.mark.usefixtures("_no_settings")
def test_a_folder_of_something_else_is_left_alone(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    (tmp_path / "thesis.txt").write_text("two years of work")
    assert main(["mlflow", "model", "--output", str(tmp_path)]) == 2
    assert "is not an MLflow model, and is not replaced by one" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert main(["mlflow", "model", "--model", "nowhere", "--output", str(tmp_path / "new")]) == 2
    assert "no model in 'nowhere'" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_an_older_model_is_replaced(place: Path, tmp_path: Path) -> None:
    write_mlflow_model(place / "models/aerofuse", tmp_path / "out")
    (tmp_path / "out/old.txt").write_text("of an older version")
    write_mlflow_model(place / "models/aerofuse", tmp_path / "out")
    assert not (tmp_path / "out/old.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
