"""Running the real pipeline on a shrunken recipe, in a clone of the repository, through DVC."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.imports import ROOT

ENVIRONMENT = os.environ | {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "OMP_NUM_THREADS": "1",
    "GIT_AUTHOR_NAME": "Test",
    "GIT_AUTHOR_EMAIL": "test@example.invalid",
    "GIT_COMMITTER_NAME": "Test",
    "GIT_COMMITTER_EMAIL": "test@example.invalid",
}


def clone_on_a_shrunken_recipe(folder: Path, data: Mapping[str, Any] | None = None, epochs: int = 1) -> Path:
    """A clone of the repository as it is in the working tree, committed; `data` changes that section of params.yaml.

    Every stage trains for so many `epochs`, and saves its state every other update.
    """
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / "dvc.lock").unlink(missing_ok=True)
    _shrink(folder / "params.yaml", data or {}, epochs)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "a shrunken recipe")
    return folder


def _shrink(params_file: Path, data: Mapping[str, Any], epochs: int) -> None:
    """Make the committed recipe small enough for a test: fewer photos, one epoch a stage, fewer resamples."""
    yaml = YAML()
    params = yaml.load(params_file.read_text(encoding="utf-8"))
    params["data"] |= data
    params["data"]["synthetic"] |= {"num_images": 200, "num_airframes": 60}
    params["compare"]["bootstrap_samples"] = 200
    params["training"]["save_state_every"] = 2
    quick = params["recipes"]["quick"]
    for name, section in quick.items():
        if name.startswith("train_"):
            section["epochs"] = epochs
    quick["evaluate"]["latency_runs"] = 2
    with params_file.open("w", encoding="utf-8") as file:
        yaml.dump(params, file)


def git(folder: Path, *arguments: str) -> str:
    """What a git command prints. Raises `CalledProcessError`."""
    done = subprocess.run(["git", *arguments], cwd=folder, env=ENVIRONMENT, check=True, capture_output=True, text=True)
    return done.stdout


def run_dvc(folder: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """A DVC command, what it prints and warns of in one text."""
    done = subprocess.run(
        ["dvc", *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert not check or done.returncode == 0, done.stdout
    return done


def ran(output: str) -> set[str]:
    """The stages that DVC says it has run."""
    return {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage '")}
