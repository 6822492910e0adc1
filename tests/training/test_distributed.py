"""Several processes train the model that one would have trained, but for rounding."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, get_args

import pytest

from aerofuse.training.params import Parallelism
from tests.imports import ROOT
from tests.warm_python import warm_python

pytestmark = pytest.mark.slow

SCRIPT = "tests.training.training_in_processes"


def _start(
    processes: int,
    folder: Path,
    output: Path,
    states: Path,
    parallelism: str,
    room: int = 99,
    python: str = sys.executable,
) -> subprocess.Popen[bytes]:
    states.mkdir(exist_ok=True)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    command = [python, *launcher, "-m", SCRIPT, str(folder), str(output), str(states), parallelism, str(room)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    environment["PYTHON_EXEC"] = python  # what torchrun starts the processes with
    return subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)


def _run(
    processes: int,
    folder: Path,
    workplace: Path,
    parallelism: str = "ddp",
    room: int = 99,
    python: str = sys.executable,
) -> dict[str, Any]:
    workplace.mkdir(exist_ok=True)
    output = workplace / f"{processes}.json"
    process = _start(processes, folder, output, workplace / "states", parallelism, room, python)
    assert process.wait(timeout=300) == 0
    found: dict[str, Any] = json.loads(output.read_text())
    assert found["processes"] == processes
    return found


@pytest.fixture(scope="module")
def quick_python() -> str:
    """For the long tests: it starts at once. The others start as a user's do."""
    return f"{warm_python()}/python"


@pytest.fixture(scope="module")
def alone(prepared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return _run(1, prepared_folder, tmp_path_factory.mktemp("alone"))


def _assert_alike(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found["images"] == expected["images"]
    for one, other in zip(found["history"], expected["history"], strict=True):
        assert one.keys() == other.keys()
        assert one["evaluated"] == other["evaluated"]  # none was counted twice
        for name in one:
            assert one[name] == pytest.approx(other[name], rel=2e-3, abs=2e-3), name
    temperatures = found["temperatures"]
    assert temperatures == [temperatures[0]] * found["processes"]  # every process has the same
    assert temperatures[0] == pytest.approx(expected["temperatures"][0], rel=1e-2)
    for name, total in found["weights"].items():
        assert total == pytest.approx(expected["weights"][name], rel=1e-3), name


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("parallelism", get_args(Parallelism))
def test_processes_give_what_one_gives(
    parallelism: str,
    processes: int,
    prepared_folder: Path,
    tmp_path: Path,
    alone: dict[str, Any],
    request: pytest.FixtureRequest,
) -> None:
    python = sys.executable if processes == 2 else request.getfixturevalue("quick_python")
    _assert_alike(_run(processes, prepared_folder, tmp_path, parallelism, python=python), alone)


def test_processes_share_the_shards_of_a_store(
    prepared_folder: Path, sharded_folder: Path, tmp_path: Path, quick_python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And give the same bits as from one file."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    found, expected = (
        _run(2, folder, tmp_path / folder.name, python=quick_python) for folder in (sharded_folder, prepared_folder)
    )
    assert found == expected
    assert list((tmp_path / ".resume/shards").glob("train-*.tar"))


def test_where_one_runs_out_of_memory_all_make_smaller_parts(
    prepared_folder: Path, tmp_path: Path, alone: dict[str, Any], quick_python: str, capfd: pytest.CaptureFixture[str]
) -> None:
    _assert_alike(_run(2, prepared_folder, tmp_path, room=3, python=quick_python), alone)
    assert capfd.readouterr().err.count("run in parts of 2 from now on") == 2  # 8, then 4, did not fit in one of them


@pytest.mark.parametrize("parallelism", get_args(Parallelism))
def test_they_stop_together_and_go_on(
    parallelism: str, prepared_folder: Path, tmp_path: Path, alone: dict[str, Any], quick_python: str
) -> None:
    states = tmp_path / "states"
    process = _start(2, prepared_folder, tmp_path / "unused.json", states, parallelism, python=quick_python)
    deadline = time.monotonic() + 120
    while not list(states.glob("state-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=60) != 0
    found = _run(2, prepared_folder, tmp_path, parallelism, python=quick_python)
    assert found["resumed"] == 1
    _assert_alike(found, alone)
