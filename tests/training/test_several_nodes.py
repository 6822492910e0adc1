"""Two agents of torchrun, started as docs/teams.md says: what fails on one machine changes no result.

Each has a clone of its own, as a machine without a shared disk. The agent that is started first has the first process,
which keeps the state and writes the results.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import psutil
import pytest

from tests.imports import ROOT
from tests.pipeline import FinishedRun, warm_environment
from tests.tracking.servers import free_port

pytestmark = pytest.mark.slow

STAGE, OUTPUT = "train_stage_c", Path("models/hybrid")
SCORES, HISTORY, TIMES = f"metrics/train/{STAGE}.json", f"plots/history/{STAGE}.csv", f"reports/times/{STAGE}.json"
_TIMEOUT_S = 300


class Node:
    """A machine: a clone of the repository, and the agent of torchrun that runs in it."""

    def __init__(self, finished: FinishedRun, folder: Path, command: str) -> None:
        self.folder, self._command = finished.copy(folder), command
        for name in (OUTPUT, Path(".resume") / STAGE):
            shutil.rmtree(self.folder / name)
        for file in (SCORES, HISTORY, TIMES):
            (self.folder / file).unlink()
        self.start()

    def start(self) -> None:
        """Start the agent, whose processes start at once, for they have imported torch already."""
        environment = warm_environment()
        environment["PYTHON_EXEC"] = f"{environment['PATH'].partition(':')[0]}/python"
        with (self.folder / "log").open("ab") as log:
            self.agent = psutil.Popen(
                ["env", *self._command.split()], cwd=self.folder, env=environment, stdout=log, stderr=subprocess.STDOUT
            )

    def kill_workers(self) -> None:
        """Kill the processes that train here; the agent stays."""
        for process in self.agent.children(recursive=True):
            process.send_signal(signal.SIGKILL)

    def kill(self) -> None:
        """Kill the agent and the processes that train here, as a machine that loses its power does."""
        workers = self.agent.children(recursive=True)
        for process in (self.agent, *workers):
            process.kill()
        psutil.wait_procs([self.agent, *workers], timeout=60)

    def states(self) -> list[Path]:
        return list(self.folder.glob(f".resume/{STAGE}/*/state-*.pt"))

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-6000:]

    def end(self) -> None:
        """Wait until the agent has ended, without an error."""
        assert self.agent.wait(timeout=_TIMEOUT_S) == 0, self.log()


def _documented(port: int) -> str:
    """The command of docs/teams.md, for two machines that are this one, with one process each."""
    page = (ROOT / "docs/teams.md").read_text(encoding="utf-8")
    command: str
    (command,) = re.findall(r"^\w+=1 torchrun .*", page, re.MULTILINE)
    here = {"--nproc-per-node 4": "--nproc-per-node 1", "HOST:29400": f"127.0.0.1:{port}"}
    for there, replacement in here.items():
        assert there in command
        command = command.replace(there, replacement)
    return command


@contextmanager
def _two_nodes(finished: FinishedRun, folder: Path) -> Iterator[list[Node]]:
    """Both machines at work; nothing of theirs is left in the end."""
    nodes: list[Node] = []
    port = free_port()
    try:
        for name in ("first", "second"):
            nodes.append(Node(finished, folder / name, _documented(port)))
            _wait_for_agents(port)  # the first agent is where they meet
        yield nodes
    finally:
        for node in nodes:
            if node.agent.is_running():
                node.kill()


def _wait_for_agents(port: int) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < deadline:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError("no agent listens")


def _results(node: Node) -> dict[str, bytes]:
    """The model and its scores, byte for byte."""
    paths = [node.folder / SCORES, *sorted((node.folder / OUTPUT).iterdir())]
    return {path.name: path.read_bytes() for path in paths}


def _history(node: Node) -> pd.DataFrame:
    return pd.read_csv(node.folder / HISTORY)


@pytest.fixture(scope="module")
def undisturbed(finished: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Node:
    with _two_nodes(finished, tmp_path_factory.mktemp("undisturbed")) as nodes:
        for node in nodes:
            node.end()
    assert not (nodes[1].folder / OUTPUT).exists()  # the first process writes
    return nodes[0]


def _kill_workers(nodes: list[Node]) -> None:
    nodes[1].kill_workers()


def _kill_the_first_process(nodes: list[Node]) -> None:
    nodes[0].kill_workers()


def _kill_an_agent_and_start_it_again(nodes: list[Node]) -> None:
    nodes[1].kill()
    nodes[1].start()


@pytest.mark.parametrize("disturb", [_kill_workers, _kill_the_first_process, _kill_an_agent_and_start_it_again])
def test_what_is_killed_on_one_machine_changes_no_result(
    disturb: Callable[[list[Node]], None], undisturbed: Node, finished: FinishedRun, tmp_path: Path
) -> None:
    with _two_nodes(finished, tmp_path) as nodes:
        deadline = time.monotonic() + _TIMEOUT_S
        while not nodes[0].states():
            assert all(node.agent.poll() is None for node in nodes), nodes[0].log()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert not (nodes[0].folder / SCORES).exists()  # it still trains
        disturb(nodes)
        for node in nodes:
            node.end()
    assert json.loads((nodes[0].folder / TIMES).read_text())["resumed"] == 1
    assert _results(nodes[0]) == _results(undisturbed)
    pd.testing.assert_frame_equal(_history(nodes[0]), _history(undisturbed), rtol=1e-5)
