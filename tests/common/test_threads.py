"""How OpenMP's threads wait, in every stage and command; what a user has set stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.imports import ROOT

STAGES = sorted(path.stem for path in (ROOT / "stages").glob("*.py") if path.stem != "__init__")
# torch brings OpenMP's library, which reads its settings when it is loaded.
WATCHED = """
import os, sys, builtins
original = builtins.__import__
def watched(name, *rest, **keywords):
    if name.partition(".")[0] == "torch":
        print(os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT"), flush=True)
        os._exit(0)
    return original(name, *rest, **keywords)
builtins.__import__ = watched
"""


def settings_at_torch(code: str, **user: str) -> str:
    """The settings of OpenMP when `code` first imports torch."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_WAIT", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED + code],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": str(ROOT / "src")} | user,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_waits_asleep_after_a_moment(stage: str) -> None:
    assert settings_at_torch(f"import stages.{stage}, torch") == "PASSIVE 1000"


@pytest.mark.parametrize("command", ["predict", "export", "memory"])
def test_a_command_waits_asleep_after_a_moment(command: str, tmp_path: Path) -> None:
    code = f"from aerofuse.cli.main import main; main([{command!r}, {str(tmp_path)!r}])"
    assert settings_at_torch(code) == "PASSIVE 1000"


@pytest.mark.parametrize(
    ("user", "kept"), [({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE None"), ({"GOMP_SPINCOUNT": "7"}, "None 7")]
)
def test_what_a_user_has_set_stays(user: dict[str, str], kept: str) -> None:
    assert settings_at_torch("import stages.weights", **user) == kept
