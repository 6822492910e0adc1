from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import aerofuse
from aerofuse.data.labels import ClassLists
from aerofuse.inference.package import PackageRecord, Preprocessing, load_package, read_package, write_package
from aerofuse.inference.unfamiliarity import STATISTICS_FILE, load_unfamiliarity, save_unfamiliarity
from aerofuse.models.files import RECORD_FILE, WEIGHTS_FILE, load_model
from aerofuse.report.model_card import DATA, model_card
from tests.imports import ROOT
from tests.inference.small_packages import (
    ARCHITECTURES,
    CLASSES,
    TEMPERATURES,
    measured,
    write_model,
    write_small_package,
)


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_package(tmp_path_factory.mktemp("packages") / "hybrid", "concat")


@pytest.fixture
def package(hybrid: Path, tmp_path: Path) -> Path:
    """One to damage."""
    return Path(shutil.copytree(hybrid, tmp_path / "package"))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_package_and_its_stage_give_the_same(name: str, tmp_path: Path) -> None:
    package = write_small_package(tmp_path / name, name)
    trained = tmp_path / f"{name}_trained"
    assert read_package(trained) is None
    read = read_package(package)
    assert read is not None
    assert read.preprocessing == Preprocessing(96)
    (packed, record), (plain, plain_record) = load_package(package), load_package(trained)
    assert record == plain_record
    assert record.temperatures.items() <= TEMPERATURES.items()
    images = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    with torch.no_grad():
        expected = plain(images)
        for task, output in packed(images).items():
            assert torch.equal(output, expected[task])


def test_a_package_knows_how_its_photos_become_square(tmp_path: Path) -> None:
    trained = write_model(tmp_path / "trained", "single_task", fit="crop")
    record = load_model(trained)[1]
    write_package(tmp_path / "package", trained, PackageRecord(Preprocessing.of(record), {}, {}, "Apache-2.0"), "")
    assert load_package(tmp_path / "package")[1].fit == "crop"
    edit(lambda content: content["preprocessing"].update(fit="stretch"))(tmp_path / "package")
    with pytest.raises(ValueError, match="does not do: fit stretch instead of crop"):
        aerofuse.load(tmp_path / "package")


def test_an_older_package_says_pad_for_letterbox(package: Path) -> None:
    edit(lambda content: (content.pop("fit"), content["preprocessing"].update(fit="pad")))(package)
    assert load_package(package)[1].fit == "letterbox"


def test_the_same_model_gives_the_same_package(tmp_path: Path) -> None:
    packages = [write_small_package(tmp_path / name, "add") for name in ("one", "two")]
    for name in (WEIGHTS_FILE, RECORD_FILE, STATISTICS_FILE, "README.md"):
        assert (packages[0] / name).read_bytes() == (packages[1] / name).read_bytes()


def test_a_package_that_is_written_again_without_statistics_has_none(package: Path, tmp_path: Path) -> None:
    record = read_package(package)
    assert record is not None
    assert load_unfamiliarity(package, load_package(package)[0].num_features) is not None
    trained = write_model(tmp_path / "trained", "concat")
    write_package(package, trained, record, "")
    assert load_unfamiliarity(package, load_package(package)[0].num_features) is None


# What a package must do without; of aerofuse, what needs them.
BLOCKED = (
    "dvc", "mlflow", "accelerate", "pandas", "albumentations", "matplotlib", "sklearn", "torchmetrics", "scipy",
    "aerofuse.training", "aerofuse.metrics", "aerofuse.comparison", "aerofuse.report", "aerofuse.plotting",
    "aerofuse.tracking", "aerofuse.ingest",
)  # fmt: skip


def test_loading_needs_no_pipeline(hybrid: Path, tmp_path: Path) -> None:
    """In a process in which none of it can be imported, far from the repository, with the package alone."""
    moved = shutil.copytree(hybrid, tmp_path / "elsewhere" / "model")
    code = f"""
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if any(name == blocked or name.startswith(blocked + ".") for blocked in {BLOCKED!r}):
            raise ImportError(f"{{name}} is blocked")

sys.meta_path.insert(0, Blocked())
import aerofuse
import numpy

prediction = aerofuse.load({str(moved)!r}).predict(numpy.zeros((50, 80, 3), numpy.uint8))
assert prediction.type in {CLASSES.types!r}, prediction
assert "torch._dynamo" not in sys.modules, "it takes a second to import"
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """A fault: `model.json` changed."""

    def damage(package: Path) -> None:
        path = package / RECORD_FILE
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return damage


def cut(package: Path) -> None:
    path = package / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:-1000])


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (cut, r"model\.safetensors \(\d+ bytes\) is not a whole safetensors file: .*; fetch or make it again"),
    "foreign": (
        lambda package: (package / RECORD_FILE).write_text('{"model_type": "bert"}'),
        r"not the record of a model: architecture: Field required",
    ),
    "no text": (lambda package: (package / RECORD_FILE).write_bytes(b"\xff\x00"), "not the record of a model: 'utf-8'"),
    "fewer types": (
        edit(lambda content: content["classes"]["types"].pop()),
        r"lists 5 classes of type, and model\.safetensors knows 6: they are of different models",
    ),
    "more airlines": (
        edit(lambda content: content["classes"]["airlines"].append("C")),
        r"lists 3 classes of airline, and model\.safetensors knows 2",
    ),
    "a type twice": (
        edit(lambda content: content["classes"]["types"].__setitem__(0, "A380")), "names a class of type twice"
    ),
    "another fusion": (
        edit(lambda content: content["architecture"].update(fusion_method="attention")),
        r"missing: fusion\.cnn_projection\.bias",
    ),
    "an unknown fusion": (
        edit(lambda content: content["architecture"].update(fusion_method="magic")),
        "fusion_method 'magic' is not known; there are concat, add, attention",
    ),
    "an unknown backbone": (
        edit(lambda content: content["architecture"].update(cnn="convnext_thinn")),
        "unknown backbone 'convnext_thinn'; near names: convnext_thin",
    ),
    "a word for a number": (
        edit(lambda content: content["temperatures"].update(type="warm")),
        r"temperatures\.type: Input should be a valid number",
    ),
    "no temperature": (
        edit(lambda content: content["temperatures"].pop("airline")),
        "has no temperature for airline: its training has not ended",
    ),
    "a temperature of 0": (
        edit(lambda content: content["temperatures"].update(type=0.0)),
        r"the temperature of type is 0\.0; it must be above 0",
    ),
    "an old record": (
        edit(lambda content: content.pop("temperatures")), "has no temperatures: an older aerofuse made it"
    ),
    "another preprocessing": (
        edit(lambda content: content["preprocessing"].update(interpolation="nearest", mean=[0.5, 0.5, 0.5])),
        r"does not do: interpolation nearest instead of bicubic, mean \(0\.5, 0\.5, 0\.5\) instead of \(0\.485",
    ),
    "statistics of another model": (
        lambda package: save_unfamiliarity(package, measured(write_model(package.parent / "other", "single_task"))),
        r"unfamiliarity\.safetensors does not fit Unfamiliarity",
    ),
    "half a package": (
        edit(lambda content: content.pop("preprocessing")), "not the record of a package: preprocessing: Input should"
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_package_is_refused_with_what_and_what_to_do(fault: str, package: Path) -> None:
    damage, message = FAULTS[fault]
    damage(package)
    with pytest.raises(ValueError, match=rf"(?s){message}"):
        aerofuse.load(package)


def test_a_missing_file_is_named(package: Path, tmp_path: Path) -> None:
    (package / WEIGHTS_FILE).unlink()
    with pytest.raises(FileNotFoundError, match=r"no weights at .*model\.safetensors"):
        aerofuse.load(package)
    (package / RECORD_FILE).unlink()
    with pytest.raises(FileNotFoundError, match=r"it has no model\.json; `dvc repro` makes it"):
        aerofuse.load(package)
    with pytest.raises(FileNotFoundError, match=r"no such folder; name a folder with model\.json"):
        aerofuse.load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="a file; name a folder"):
        aerofuse.load(package / "README.md")


def test_what_is_not_calibrated_is_not_packaged(tmp_path: Path) -> None:
    trained = write_model(tmp_path / "trained", "single_task")
    edit(lambda content: content["temperatures"].clear())(trained)
    with pytest.raises(ValueError, match="has no temperature for type"):
        write_package(tmp_path / "package", trained, PackageRecord(Preprocessing(96), {}, {}, "Apache-2.0"), "")
    assert not (tmp_path / "package").exists()


@pytest.mark.parametrize("source", DATA)
@pytest.mark.parametrize("name", ["single_task", "concat"])
def test_the_card_says_what_was_measured(name: str, source: str, tmp_path: Path) -> None:
    _, record = load_model(write_model(tmp_path, name, ClassLists(("A320", "B747"), ("Ærø",))))
    test = {"type_labelled": 321, "type_top1": 0.8765, "type_ece": 0.0123, "type_ece_uncalibrated": 0.0456}
    package = PackageRecord(Preprocessing(96), test, {"torch": "2.13.0"}, "Some-Licence-1.0")
    card = model_card(record, package, source)
    for words in ("| type top-1 | 87.65 % |", "321", "1.23 %", "4.56 %", "0.500", "Some-Licence-1.0", "torch 2.13.0"):
        assert words in card
    assert DATA[source] in card
    assert "2 types: A320, B747." in card
    assert ("Ærø" in card) == ("**clarity**" in card) == (name == "concat")
