from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.imports import ROOT

SETUP = "pip install"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with an environment that says it is ready; its name has a blank and Chinese letters."""
    project = tmp_path / "飛機 project"
    (project / ".venv").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "requirements-demo.lock"):
        shutil.copyfile(ROOT / name, project / name)
    return project


def _what_make_does(project: Path, target: str) -> str:
    command = ["make", "--dry-run", target]
    return subprocess.run(command, cwd=project, check=True, capture_output=True, text=True).stdout


def test_a_project_that_is_ready_is_not_set_up_again(project: Path) -> None:
    (project / ".venv/ready").write_text(f"{project}\n")
    assert SETUP not in _what_make_does(project, "repro")


@pytest.mark.parametrize("target", ["setup", "repro", "demo"])
def test_a_project_that_was_moved_is_set_up_again(project: Path, target: str) -> None:
    """The programs of an environment name its path, and there they are not any more."""
    (project / ".venv/ready").write_text("/some/other place\n")
    assert SETUP in _what_make_does(project, target)
    assert "venv --clear .venv" in _what_make_does(project, target)


def test_setting_up_records_where(project: Path, tmp_path: Path) -> None:
    """With programs in place of Python and pip, which would load packages."""
    (tmp_path / "bin").mkdir()
    for name in ("python", "python3", "pip"):
        (tmp_path / "bin" / name).write_text("#!/bin/sh\n")
        (tmp_path / "bin" / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    subprocess.run(["make", "setup"], cwd=project, check=True, capture_output=True, env=environment)
    assert SETUP not in _what_make_does(project, "repro")
    moved = project.rename(tmp_path / "moved")
    assert SETUP in _what_make_does(moved, "repro")
