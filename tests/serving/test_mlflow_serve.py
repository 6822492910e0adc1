"""The commands of docs/serving.md, as they stand there, against the real `mlflow models serve`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import aerofuse
from tests.imports import ROOT
from tests.inference.small_packages import write_small_package
from tests.serving.photos import as_base64, png_bomb, write_photo
from tests.tracking.servers import Server, free_port

pytestmark = pytest.mark.slow

_START_TIMEOUT_S = 240.0


class ModelServer(Server):
    """`mlflow models serve`, started by a command line of docs/serving.md."""

    def __init__(self, folder: Path, command: str, port: int) -> None:
        super().__init__("mlflow_models_serve", folder)
        self._command = command
        self.address = f"http://127.0.0.1:{port}"

    def start(self) -> None:
        command = ["bash", "-c", self._command]
        self.launch(command, self._is_up, _START_TIMEOUT_S, env=environment(self._folder))

    def _is_up(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/ping", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def environment(place: Path) -> dict[str, str]:
    """With `aerofuse` and `mlflow` as commands, of this very code."""
    commands = place / "bin"
    commands.mkdir(exist_ok=True)
    code = "import sys; from aerofuse.cli.main import main; sys.exit(main(sys.argv[1:]))"
    (commands / "aerofuse").write_text(f'#!/bin/sh\nexec "{sys.executable}" -c \'{code}\' "$@"\n')
    (commands / "aerofuse").chmod(0o755)
    path = os.pathsep.join((str(commands), str(Path(sys.executable).parent), os.environ["PATH"]))
    settings = {"PATH": path, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    settings["MLFLOW_DISABLE_TELEMETRY"] = "true"
    return {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"} | settings


def commands(language: str, port: int) -> list[str]:
    """The blocks of the page, in order, on another port."""
    page = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    return [block.replace("5001", str(port)) for of, block in blocks if of == language]


def run(command: str, place: Path) -> str:
    done = subprocess.run(
        ["bash", "-c", command], cwd=place, env=environment(place), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `models/aerofuse` and `photo.jpg`."""
    place = tmp_path_factory.mktemp("place")
    write_small_package(place / "models/aerofuse", "attention")
    write_photo(place / "photo.jpg")
    return place


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def server(place: Path, port: int) -> Iterator[ModelServer]:
    make, serve = commands("", port)[0].splitlines()
    run(make, place)
    server = ModelServer(place, serve, port)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def expected(place: Path) -> dict[str, Any]:
    return {**aerofuse.load(place / "models/aerofuse").predict(place / "photo.jpg").to_dict(), "error": None}


def post(server: ModelServer, request: object) -> tuple[int, Any]:
    """The status and the answer to a request."""
    content = json.dumps(request).encode()
    asked = urllib.request.Request(f"{server.address}/invocations", content, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def assert_close(record: dict[str, Any], expected: dict[str, Any]) -> None:
    """To the rounding of float32."""
    assert list(record) == list(expected)
    for name, value in expected.items():
        if isinstance(value, float):
            assert record[name] == pytest.approx(value, abs=2e-6), name
        elif isinstance(value, list):
            for one, other in zip(record[name], value, strict=True):
                assert_close(one, other)
        else:
            assert record[name] == value, name


def test_curl(server: ModelServer, place: Path, port: int, expected: dict[str, Any]) -> None:
    answer = json.loads(run(commands("", port)[1], place))
    assert list(answer) == ["predictions"]
    (record,) = answer["predictions"]
    assert_close(record, expected)


@pytest.mark.parametrize("form", ["dataframe_records", "dataframe_split", "inputs", "instances"])
def test_all_forms_of_a_request(server: ModelServer, place: Path, expected: dict[str, Any], form: str) -> None:
    photo = as_base64((place / "photo.jpg").read_bytes())
    data: dict[str, object] = {
        "dataframe_records": [{"image": photo}],
        "dataframe_split": {"columns": ["image"], "data": [[photo]]},
        "inputs": {"image": [photo]},
        "instances": [{"image": photo}],
    }
    status, answer = post(server, {form: data[form]})
    assert status == 200
    assert_close(answer["predictions"][0], expected)


def test_bad_photos_beside_a_good_one(server: ModelServer, place: Path, expected: dict[str, Any]) -> None:
    bad = {
        as_base64(png_bomb(30_000)): "more than 64000000 pixels: a decompression bomb?",
        as_base64(bytes(21 * 2**20)): "larger than 20971520 bytes",
        as_base64(b"no photo"): "not an image",
        "/etc/hostname.": "not base64",
    }
    photos = [as_base64((place / "photo.jpg").read_bytes()), None, *bad]
    status, answer = post(server, {"dataframe_records": [{"image": photo} for photo in photos]})
    assert status == 200
    records = answer["predictions"]
    assert_close(records[0], expected)
    for record, reason in zip(records[1:], ["no photo", *bad.values()], strict=True):
        assert reason in record["error"]
        assert record["type"] is record["quality_score"] is None


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"dataframe_records": [{"photo": "AAAA"}]}, "missing inputs ['image']"),
        ({"dataframe_records": []}, "missing inputs ['image']"),
        ({"dataframe_records": [{"image": "AAAA"}] * 17}, "17 photos in one request; at most 16"),
        ({"photo": "AAAA"}, "exactly one of the input fields"),
        (["AAAA"], "Received a list"),
    ],
    ids=["column", "empty", "many", "field", "list"],
)
def test_requests_that_are_refused(server: ModelServer, request_: object, reason: str) -> None:
    status, answer = post(server, request_)
    assert status == 400
    assert reason in answer["message"]


def test_python(server: ModelServer, place: Path, port: int, expected: dict[str, Any]) -> None:
    (code,) = commands("python", port)
    script = place / "script.py"
    script.write_text(f"{code}\nimport json\nprint(json.dumps(records))\n")
    (record,) = json.loads(run(f"python {script.name}", place).splitlines()[-1])
    assert_close(record, expected)


def test_a_port_that_is_taken(server: ModelServer, place: Path, port: int) -> None:
    serve = commands("", port)[0].splitlines()[1]
    done = subprocess.run(
        ["bash", "-c", serve], cwd=place, env=environment(place), capture_output=True, text=True, timeout=300
    )
    assert done.returncode != 0
    assert "address already in use" in done.stderr + done.stdout
    assert post(server, {"dataframe_records": []})[0] == 400  # the first one lives on


def test_out_of_the_registry(place: Path, expected: dict[str, Any]) -> None:
    port = free_port()
    register, serve = commands("", port)[2].splitlines()
    assert "Registered as aircraft, version 1." in run(register, place)
    server = ModelServer(place, serve, port)
    server.start()
    try:
        photo = as_base64((place / "photo.jpg").read_bytes())
        status, answer = post(server, {"inputs": {"image": photo}})
    finally:
        server.kill()
    assert status == 200
    assert_close(answer["predictions"][0], expected)
