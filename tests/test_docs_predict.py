"""Every command and every piece of Python in docs/predict.md runs, in its order, in one folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.imports import ROOT
from tests.inference.small_packages import write_model, write_small_package
from tests.warm_python import warm_python

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs/predict.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
# The command of this checkout, whatever is installed.
COMMAND = '#!/bin/sh\nexec {python} -c "import sys; from aerofuse.cli.main import main; sys.exit(main())" "$@"\n'


def test_every_block_runs(tmp_path: Path) -> None:
    python = f"{warm_python()}/python"
    write_small_package(tmp_path / "models/aerofuse", "concat")
    write_model(tmp_path / "models/multi_task", "multi_task")
    shutil.copytree(ROOT / "docs/photos", tmp_path / "docs/photos")
    command = tmp_path / "bin/aerofuse"
    command.parent.mkdir()
    command.write_text(COMMAND.format(python=python))
    command.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "OMP_NUM_THREADS": "1",
    }
    ran = []
    for language, content in BLOCKS:
        if language == "text":
            continue
        lines = [content] if language == "python" else content.splitlines()
        for line in lines:
            start = [python, "-c"] if language == "python" else ["bash", "-c"]
            done = subprocess.run([*start, line], cwd=tmp_path, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"{line}\n{done.stderr}"
            assert done.stdout or ">" in line, line
            ran.append(line)
    assert len(ran) >= 9
    predictions = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [record["file"] for record in predictions] == sorted(
        f"docs/photos/{path.name}" for path in (ROOT / "docs/photos").iterdir()
    )
    assert {path.name for path in (tmp_path / "exported").iterdir()} == {"model.onnx", "model.pt2"}


def test_every_subcommand_and_option_named_is_there() -> None:
    """A word in backquotes that begins with two dashes is an option of `predict` or `export`."""
    from aerofuse.cli.main import COMMANDS

    python = f"{warm_python()}/python"
    shown = ""
    for name in COMMANDS:
        done = subprocess.run(
            [python, "-c", "from aerofuse.cli.main import main; main()", name, "--help"],
            env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        shown += done.stdout
    options = set(re.findall(r"--[a-z][a-z-]*", PAGE))
    assert {"--json", "--csv", "--model"} <= options
    assert {option for option in options if option not in shown} == set()
