from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.imports import ROOT

# It starts a child that would go on for long; both write down who they are, and the parent that it was interrupted.
COMMAND = """
import os, pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path("pids.partial").write_text(f"{os.getpid()} {child.pid}")
pathlib.Path("pids.partial").rename("pids")
try:
    time.sleep(600)
except KeyboardInterrupt:
    pathlib.Path("interrupted").touch()
"""
# A parent as a worker is one, which says nothing more when it is killed.
PARENT = """
import subprocess, sys, time
command = [sys.executable, "-m", "aerofuse.tuning.supervised", sys.executable, "-c", sys.argv[1]]
subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
time.sleep(600)
"""


def _start(folder: Path, *command: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    return subprocess.Popen([sys.executable, *command], cwd=folder, env=environment, stdin=subprocess.PIPE)


def _pids(folder: Path) -> list[int]:
    give_up = time.monotonic() + 60
    while not (folder / "pids").exists():
        assert time.monotonic() < give_up
        time.sleep(0.05)
    return [int(pid) for pid in (folder / "pids").read_text().split()]


def _wait_until_gone(pids: list[int]) -> None:
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=60)
    assert [one for one in alive if one.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_killed_worker_has_started_ends_with_it(number: signal.Signals, tmp_path: Path) -> None:
    parent = _start(tmp_path, "-c", PARENT, COMMAND)
    pids = _pids(tmp_path)
    parent.send_signal(number)
    parent.wait()
    _wait_until_gone(pids)
    assert (tmp_path / "interrupted").exists(), "as by Ctrl-C, so that it can save its state"


def test_closing_its_input_ends_it_with_a_status_of_its_own(tmp_path: Path) -> None:
    process = _start(tmp_path, "-m", "aerofuse.tuning.supervised", sys.executable, "-c", COMMAND)
    pids = _pids(tmp_path)
    process.communicate()
    assert process.returncode == 130
    _wait_until_gone(pids)


@pytest.mark.parametrize("status", [0, 7])
def test_the_exit_status_is_that_of_the_command(status: int, tmp_path: Path) -> None:
    process = _start(tmp_path, "-m", "aerofuse.tuning.supervised", sys.executable, "-c", f"raise SystemExit({status})")
    assert process.wait() == status
