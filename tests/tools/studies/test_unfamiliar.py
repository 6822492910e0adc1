from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from aerofuse.data.labels import ClassLists
from tests.inference.small_packages import write_model, write_small_package
from tests.serving.photos import write_photo
from tools.studies import unfamiliar
from tools.studies.unfamiliar import auroc, main, write_photo_table


def test_auroc_counts_pairs() -> None:
    familiar = np.array([0.1, 0.2, 0.3, 0.4])
    assert auroc(familiar, familiar + 1) == 1
    assert auroc(familiar, familiar) == 0.5
    assert auroc(familiar, np.array([0.0, 0.35])) == 3 / 8


@pytest.fixture
def root(tmp_path: Path, prepared_folder: Path, classes: ClassLists, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository's root with a package, prepared photos, and a folder of three photos of which one is none."""
    write_small_package(tmp_path / "models/aerofuse", "single_task", classes)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/prepared").symlink_to(prepared_folder)
    (tmp_path / "reports").mkdir()
    (tmp_path / "photos").mkdir()
    for number in range(2):
        write_photo(tmp_path / f"photos/{number}.jpg", seed=number)
    (tmp_path / "photos/2.jpg").write_bytes(b"nothing")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("root")
def test_photos_of_a_folder() -> None:
    main(["--photos", "photos"])
    lines = Path("reports/unfamiliar_photos.md").read_text(encoding="utf-8").splitlines()
    assert [cell.strip() for cell in lines[3].split("|")[1:3]] == ["photos of the folder", "2"]
    assert "100.00 %" in lines[3]  # the package's statistics are of noise


def test_a_package_without_statistics(root: Path, classes: ClassLists) -> None:
    shutil.rmtree(root / "models/aerofuse")
    write_model(root / "models/aerofuse", "single_task", classes)
    with pytest.raises(ValueError, match="has no statistics of its training photos"):
        main(["--photos", "photos"])


def test_left_out_types(root: Path, classes: ClassLists, monkeypatch: pytest.MonkeyPatch) -> None:
    """The experiment is named the other types; what DVC gets are the workspace's files."""
    started: list[Mapping[str, object]] = []

    def start(_name: str, settings: Mapping[str, object], targets: Sequence[str]) -> str:
        assert list(targets) == ["package"]
        started.append(settings)
        return "revision"

    def get(command: Sequence[str], *, check: bool) -> None:
        assert check
        assert command[:3] == ["dvc", "get", "."]
        shutil.copytree(root / command[3], command[-1])

    monkeypatch.setattr(unfamiliar, "run_experiment", start)
    monkeypatch.setattr(subprocess, "run", get)
    first, *others = classes.types
    main(["--left-out", first])
    (settings,) = started
    assert settings["data.source"] == "table"
    assert first not in str(settings["data.only_types"])
    assert all(f'"{name}"' in str(settings["data.only_types"]) for name in others)
    page = Path("reports/unfamiliar_types.md").read_text(encoding="utf-8")
    assert f"| {first} " in page
    with pytest.raises(ValueError, match="has no type Zeppelin; there are"):
        main(["--left-out", "Zeppelin"])


def test_prepared_photos_as_a_table(tmp_path: Path, prepared_folder: Path) -> None:
    labels = write_photo_table(prepared_folder, tmp_path).read_text(encoding="utf-8").splitlines()
    assert labels[0] == "filename,typename,airlinename,clarity,block,registration"
    assert len(labels) - 1 == len(list(tmp_path.glob("*.jpg"))) == 160


def test_photos_or_types_are_named() -> None:
    with pytest.raises(SystemExit):
        main([])
