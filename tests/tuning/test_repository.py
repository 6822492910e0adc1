from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from aerofuse.ingest.inputs import INPUTS as LINKS
from aerofuse.tuning.repository import INPUTS, read_state
from tests.imports import ROOT
from tests.pipeline import git


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the pipeline reads, in a repository of its own, which is the working folder."""
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("src/aerofuse/models", "stages"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "a pipeline")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _fingerprint() -> str:
    return read_state().fingerprint


def _set_data(folder: Path, **values: Any) -> None:
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    params["data"] |= values
    yaml.dump(params, folder / "params.yaml")


def test_the_fingerprint_is_of_all_that_changes_a_result(pipeline: Path) -> None:
    found = [_fingerprint()]
    (pipeline / "README.md").write_text("words")
    git(pipeline, "add", "README.md")
    assert _fingerprint() == found[0]
    code = pipeline / "src/aerofuse/models/fusion.py"
    code.write_text(code.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    found.append(_fingerprint())
    git(pipeline, "commit", "--quiet", "--all", "--message", "an edit")
    assert _fingerprint() == found[1], "committed or not"
    assert git(pipeline, "status", "--short") == ""
    photos = pipeline / "photos"
    photos.mkdir()
    _set_data(pipeline, source="table", root=str(photos), labels=str(photos / "labels.csv"))
    found.append(_fingerprint())
    (photos / "labels.csv").write_text("filename,typename\n")
    found.append(_fingerprint())
    (photos / "one.jpg").write_bytes(b"1")
    found.append(_fingerprint())
    assert len(set(found)) == len(found)


def test_the_state_has_edits_in_a_commit_of_its_own(pipeline: Path) -> None:
    assert read_state().tree == read_state().commit == git(pipeline, "rev-parse", "HEAD").strip()
    (pipeline / "stages/train.py").write_text("edited\n")
    state = read_state()
    assert git(pipeline, "show", f"{state.tree}:stages/train.py") == "edited\n"
    assert state.commit == git(pipeline, "rev-parse", "HEAD").strip()


def test_all_that_stages_read_and_none_makes_is_in_the_fingerprint() -> None:
    stages = [stage for stage in Repo(str(ROOT)).index.stages if stage.path_in_repo == "dvc.yaml"]
    made = {out.def_path for stage in stages for out in stage.outs}
    needed = {dependency.def_path for stage in stages for dependency in stage.deps}
    known = (*INPUTS, str(LINKS))  # the photos are looked at file by file, where the parameters name them
    unknown = {name for name in needed - made if not name.startswith(known)}
    assert {name for name in unknown if not any(out.startswith(f"{name}/") for out in made)} == set()
