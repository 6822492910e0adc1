from __future__ import annotations

import socket
from pathlib import Path

import pytest

from aerofuse.cli.main import main
from aerofuse.demo import launch
from tests.tracking.servers import free_port


def test_without_gradio(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(launch, "find_spec", lambda name: None)
    assert main(["demo"]) == 2
    assert capsys.readouterr().err == "aerofuse: the page needs Gradio: pip install 'aerofuse[demo]'\n"


def test_a_port_that_is_taken(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(launch, "find_spec", lambda name: name)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["demo", "--port", str(port)]) == 2
    error = capsys.readouterr().err
    assert error == f"aerofuse: port {port} cannot be used (Address already in use); name another one with --port\n"


def test_no_such_port(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(launch, "find_spec", lambda name: name)
    assert main(["demo", "--port", "70000"]) == 2
    assert "port 70000 cannot be used (there are 65535)" in capsys.readouterr().err


def test_no_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(launch, "find_spec", lambda name: name)
    assert main(["demo", "--model", str(tmp_path / "nowhere"), "--port", str(free_port())]) == 2
    assert "no such folder" in capsys.readouterr().err
