"""Outputs shared through a DVC remote on a real S3 server; of the whole pipeline in test_pipeline.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.pipeline import clone_on_a_shrunken_recipe, git, ran, run_dvc
from tests.s3_server import S3Server, add_remote, free_ports, s3_server

pytestmark = pytest.mark.slow

STAGE, OUTPUTS = "weights", ("models/pretrained/cnn.safetensors", "models/pretrained/transformer.safetensors")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3") / "server") as started:
        yield started


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone that has run what takes seconds."""
    folder = clone_on_a_shrunken_recipe(tmp_path_factory.mktemp("first") / "aerofuse")
    run_dvc(folder, "repro", STAGE)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "results")
    return folder


def _second(first: Path, folder: Path) -> Path:
    """A clone on another machine: nothing but what git has."""
    git(first, "clone", "--quiet", str(first), str(folder))
    assert not any((folder / name).exists() for name in OUTPUTS)
    return folder


def test_what_is_pushed_is_pulled_elsewhere_and_not_run_again(first: Path, server: S3Server, tmp_path: Path) -> None:
    add_remote(first, server)
    run_dvc(first, "push", STAGE)
    assert "Everything is up to date." in run_dvc(first, "push", STAGE).stdout
    second = _second(first, tmp_path / "aerofuse")
    add_remote(second, server)
    run_dvc(second, "pull", STAGE)
    for name in OUTPUTS:
        assert (second / name).read_bytes() == (first / name).read_bytes()
    output = run_dvc(second, "repro", STAGE).stdout
    assert ran(output) == set()
    assert "Data and pipelines are up to date." in output


def test_neither_keys_nor_the_remote_are_where_git_would_take_them(first: Path, server: S3Server) -> None:
    add_remote(first, server, "elsewhere")
    assert server.secret_key in (first / ".dvc/config.local").read_text(encoding="utf-8")
    assert git(first, "check-ignore", ".dvc/config.local").strip() == ".dvc/config.local"
    assert git(first, "status", "--short") == ""


@pytest.mark.parametrize(("command", "message"), [("push", "signature"), ("pull", "Forbidden")])
def test_a_wrong_key_is_refused(command: str, message: str, first: Path, server: S3Server, tmp_path: Path) -> None:
    folder = first if command == "push" else _second(first, tmp_path / "aerofuse")
    add_remote(folder, replace(server, secret_key="another one"), f"wrong-{command}")
    done = run_dvc(folder, command, STAGE, check=False)
    assert done.returncode != 0
    assert message in done.stdout


@pytest.mark.parametrize("command", ["push", "pull"])
def test_a_server_that_does_not_answer_is_named(command: str, first: Path, server: S3Server, tmp_path: Path) -> None:
    folder = first if command == "push" else _second(first, tmp_path / "aerofuse")
    away = replace(server, url=f"http://127.0.0.1:{free_ports(1)[0]}")
    add_remote(folder, away, f"away-{command}")
    done = run_dvc(folder, command, STAGE, check=False)
    assert done.returncode != 0
    assert f'Could not connect to the endpoint URL: "{away.url}' in done.stdout
