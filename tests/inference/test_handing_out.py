"""The stages `package` and `export` on an untrained model: files, agreement between them, repeatability."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML

import aerofuse
from aerofuse.common.params import PARAMS_FILE, read_params_file
from aerofuse.data.dataset import PreparedSplit
from aerofuse.data.labels import ClassLists
from stages.export import export
from stages.package import package
from tests.inference.small_packages import TEMPERATURES, write_model

pytestmark = pytest.mark.slow

REPEATABLE = ("models/aerofuse/*", "models/exported/*", "metrics/export.json")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, prepared_folder: Path, classes: ClassLists) -> Path:
    """A repository's root after training and evaluation, packaged and exported."""
    root = tmp_path_factory.mktemp("root")
    params = read_params_file()
    params["recipes"]["quick"]["evaluate"]["latency_runs"] = 2
    with (root / PARAMS_FILE).open("w", encoding="utf-8") as file:
        YAML().dump(params, file)
    (root / "data").mkdir()
    (root / "data/prepared").symlink_to(prepared_folder)
    # All heads on one backbone, to be exported in a third of the time; `test_exported_model.py` exports hybrids.
    write_model(root / "models/hybrid", "multi_task", classes, confident=True)
    (root / "metrics/evaluate").mkdir(parents=True)
    measured = {"type_labelled": 30, "type_top1": 0.4321, "type_ece": 0.1, "type_ece_uncalibrated": 0.2}
    (root / "metrics/evaluate/hybrid.json").write_text(json.dumps({"hybrid": measured}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        run_both()
    return root


def run_both() -> None:
    for folder in ("aerofuse", "exported"):  # as DVC does before a stage
        shutil.rmtree(Path("models") / folder, ignore_errors=True)
    package()
    Path("reports").mkdir(exist_ok=True)
    export()


def repeatable_files(root: Path) -> dict[str, bytes]:
    paths = sorted(path for pattern in REPEATABLE for path in root.glob(pattern))
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def test_the_package_has_what_was_measured(root: Path) -> None:
    record = json.loads((root / "models/aerofuse/model.json").read_text())
    assert record["test"]["type_top1"] == 0.4321
    assert record["temperatures"] == TEMPERATURES
    assert record["licence"] == "Apache-2.0"
    assert record["versions"].keys() == {"aerofuse", "torch", "timm"}
    card = (root / "models/aerofuse/README.md").read_text()
    assert "43.21 %" in card
    assert "Aerofuse draws itself" in card
    assert aerofuse.load(root / "models/aerofuse").record.epoch == record["epoch"]


def test_the_package_knows_its_validation_photos(root: Path, prepared_folder: Path, classes: ClassLists) -> None:
    predictor = aerofuse.load(root / "models/aerofuse")
    split = PreparedSplit(prepared_folder / "validation.arrow", classes)
    photos = torch.stack([split[number][0] for number in range(len(split))])
    unfamiliar = sum(bool(found.unfamiliar) for found in predictor.predict_batch(photos))
    assert unfamiliar / len(split) == pytest.approx(0.05, abs=0.04)
    noise = torch.randint(0, 256, photos.shape, dtype=torch.uint8)
    assert all(found.unfamiliar for found in predictor.predict_batch(noise))


def test_the_report_names_the_fastest_and_the_difference(root: Path) -> None:
    metrics = json.loads((root / "metrics/export.json").read_text())["export"]
    report = json.loads((root / "reports/export.json").read_text())
    page = (root / "reports/export.md").read_text()
    assert metrics["onnx_same_top1"] == metrics["torch_same_top1"] == 1.0
    assert metrics["onnx_max_difference"] <= 1e-4
    assert metrics["onnx_images"] == report["parity"]["onnx"]["images"] > 20
    for size in ("1", "16"):
        fastest = report["fastest_by_latency"][size]
        medians = {way: sizes[size]["median"] for way, sizes in report["latency_ms"].items()}
        assert medians[fastest] == min(medians.values())
        assert f"Fastest for a batch of {size}: **{fastest}**" in page


def test_twice_gives_the_same_bytes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    before = repeatable_files(root)
    assert len(before) == 7
    run_both()
    assert repeatable_files(root) == before
