from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aerofuse.cli.main import main
from aerofuse.cli.predict import list_photos, read_names
from aerofuse.inference import predictor
from aerofuse.inference.unfamiliarity import NOTICE
from tests.data.odd_files import broken_second_page, damaged_avif, shut_folder, write
from tests.imports import ROOT
from tests.inference.small_packages import CLASSES, write_model, write_small_package
from tests.ingest.photo_folder import draw_folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `models/aerofuse`, and `photos` of which the third is broken."""
    place = tmp_path_factory.mktemp("place")
    write_small_package(place / "models/aerofuse", "attention")
    folder = draw_folder(place / "photos", photos=6)
    folder.labels.unlink()
    (place / "photos/photo-0002.jpg").write_bytes(b"nothing")
    return place


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def test_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "photos/photo-0000.jpg", "photos/photo-0001.jpg"]) == 0
    printed = capsys.readouterr()
    lines = [line for line in printed.out.splitlines() if "photo-" in line]
    assert [line.split()[0] for line in lines] == ["photos/photo-0000.jpg", "photos/photo-0001.jpg"]
    for word in ("type", "airline", "clarity", "block", "quality", "%"):
        assert word in printed.out
    assert printed.err == ""


def test_unfamiliar_photos_are_marked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "photos/photo-0000.jpg"]) == 0
    printed = capsys.readouterr().out
    (line,) = (line for line in printed.splitlines() if "photo-" in line)
    assert line.split()[-1] == "1.00!"
    assert printed.splitlines()[-1] == f"  ! {NOTICE}"


def test_names_of_unfamiliar_photos_are_left_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = "photos/photo-0000.jpg"
    named, silent = ["type", "type_confidence", "airline", "airline_confidence"], {}
    for above in (0.5, 1.1):
        monkeypatch.setattr(predictor, "UNFAMILIAR_ABOVE", above)
        assert main(["predict", photo, "--json", "--abstain"]) == 0
        record = json.loads(capsys.readouterr().out)
        silent[record["unfamiliar"]] = [record[name] is None for name in named] + [record["type_top5"] == []]
        assert record["clarity"] is not None
        assert record["unfamiliar_score"] > 0.99
    assert silent == {True: [True] * 5, False: [False] * 5}


def test_a_model_without_statistics_cannot_abstain(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    baseline = str(write_model(tmp_path / "single_task", "single_task"))
    assert main(["predict", "photos/photo-0000.jpg", "--model", baseline, "--abstain"]) == 2
    printed = capsys.readouterr()
    assert "has no unfamiliarity.safetensors; name a package" in printed.err
    assert printed.out == ""


def test_json_lines_and_a_bad_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "photos", "--json", "--batch-size", "2"]) == 1
    printed = capsys.readouterr()
    records = [json.loads(line) for line in printed.out.splitlines()]
    assert [record["file"] for record in records] == [f"photos/photo-000{number}.jpg" for number in (0, 1, 3, 4, 5)]
    for record in records:
        assert record["type"] in CLASSES.types
        assert record["airline"] in CLASSES.airlines
        assert record["type_top5"][0] == {"name": record["type"], "confidence": record["type_confidence"]}
        assert record["quality_score"] == pytest.approx(record["clarity"] * (1 - record["block"]), abs=1e-5)
    assert printed.err == "aerofuse: photos/photo-0002.jpg: not an image\n"


def test_files_that_break_their_decoder_leave_the_others_their_answers(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bad = [write(tmp_path, "bad.avif", damaged_avif()), write(tmp_path, "bad.tif", broken_second_page())]
    bad.append(tmp_path / ("long" * 74 + ".jpg"))
    good = ["photos/photo-0000.jpg", "photos/photo-0001.jpg"]
    assert main(["predict", good[0], *map(str, bad), good[1], "--json"]) == 1
    printed = capsys.readouterr()
    assert [json.loads(line)["file"] for line in printed.out.splitlines()] == good
    assert [line.split(": ")[1] for line in printed.err.splitlines()] == list(map(str, bad))


def test_a_folder_that_is_shut_leaves_the_others_their_answers(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shut").mkdir()
    shut_folder(monkeypatch, tmp_path / "shut")
    for named in (tmp_path, tmp_path / "shut"):
        assert main(["predict", str(named), "photos/photo-0000.jpg", "--json"]) == 1
        printed = capsys.readouterr()
        assert json.loads(printed.out)["file"] == "photos/photo-0000.jpg"
        assert f"aerofuse: {tmp_path}/shut: cannot be read (Permission denied)" in printed.err.splitlines()


def test_a_path_without_permission_leaves_the_others_their_answers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = os.stat

    def refuse(path: object, *arguments: Any, **keywords: Any) -> os.stat_result:
        if str(path).startswith("shut/"):
            raise PermissionError(13, "Permission denied")
        return stat(path, *arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", refuse)
    assert main(["predict", "shut/a.jpg", "shut/[ab].jpg", "photos/photo-0000.jpg", "--json"]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)["file"] == "photos/photo-0000.jpg"
    assert printed.err.splitlines() == [
        "aerofuse: shut/[ab].jpg: no file matches this pattern",
        "aerofuse: shut/a.jpg: cannot be read (Permission denied)",
    ]


def test_what_is_passed_over_in_a_folder_is_counted_and_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, place: Path
) -> None:
    photo = (place / "photos/photo-0000.jpg").read_bytes()
    (tmp_path / "linked").symlink_to(place / "elsewhere", target_is_directory=True)
    (place / "elsewhere").mkdir()
    for name in ("a.jfif", "b.jpe", "linked/c.jpg"):
        (tmp_path / name).write_bytes(photo)
    for number in range(11):
        (tmp_path / f"notes-{number:02}.txt").touch()
    assert main(["predict", str(tmp_path), "--json"]) == 0
    printed = capsys.readouterr()
    files = [Path(json.loads(line)["file"]).name for line in printed.out.splitlines()]
    assert files == ["a.jfif", "b.jpe", "c.jpg"]
    assert f"aerofuse: {tmp_path}: 11 passed over" in printed.err
    assert printed.err.endswith("notes-08.txt, notes-09.txt and 1 more\n")


def test_csv_says_what_json_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "photos/photo-000[01].jpg", "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert main(["predict", "photos/photo-000[01].jpg", "--json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == len(records) == 2
    for row, record in zip(rows, records, strict=True):
        assert list(row) == list(record)
        assert json.loads(row["type_top5"]) == record["type_top5"]
        for name in set(record) - {"type_top5"}:
            assert row[name] == str(record[name])


def test_a_baseline_leaves_empty_what_it_does_not_know(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    baseline = str(write_model(tmp_path / "single_task", "single_task"))
    photo = "photos/photo-0000.jpg"
    assert main(["predict", photo, "--model", baseline, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["type"] in CLASSES.types
    assert record["airline"] is record["clarity"] is record["quality_score"] is record["unfamiliar"] is None
    assert main(["predict", photo, "--model", baseline, "--csv"]) == 0
    assert next(csv.DictReader(io.StringIO(capsys.readouterr().out)))["airline"] == ""
    assert main(["predict", photo, "--model", baseline]) == 0
    assert "-" in capsys.readouterr().out.splitlines()[-2].split()


def test_a_list_on_stdin(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("photos/photo-0004.jpg\n\nphotos/photo-0001.jpg\n"))
    assert main(["predict", "-", "--json"]) == 0
    files = [json.loads(line)["file"] for line in capsys.readouterr().out.splitlines()]
    assert files == ["photos/photo-0004.jpg", "photos/photo-0001.jpg"]


def test_what_stands_for_no_photo_is_said_and_the_rest_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "models", "nothing*.jpg", "none.jpg", "photos/photo-0000.jpg", "--json"]) == 1
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 1
    assert [line.split(": ")[1] for line in printed.err.splitlines()] == ["models", "nothing*.jpg", "none.jpg"]


def test_odd_names_are_written_as_they_are(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    photo = (place / "photos/photo-0000.jpg").read_bytes()
    odd = place / "odd"
    odd.mkdir()
    (odd / "[bold]Ærø 飛機.jpg").write_bytes(photo)
    Path(os.fsdecode(os.fsencode(odd) + b"/\xff.jpg")).write_bytes(photo)
    for output in ([], ["--json"], ["--csv"]):
        assert main(["predict", "odd", *output]) == 0
        printed = capsys.readouterr().out
        assert "[bold]Ærø 飛機.jpg" in printed
        assert "xff.jpg" in printed


@pytest.mark.parametrize("output", [[], ["--json"], ["--csv"]])
def test_every_line_is_written_to_a_console_that_cannot_show_it(output: list[str], place: Path) -> None:
    folder = place / "emoji"
    folder.mkdir(exist_ok=True)
    names = ["1 first.jpg", "2 \U0001f6e9 飛機.jpg", "3 last.jpg"]
    for name in names:
        (folder / name).write_bytes((place / "photos/photo-0000.jpg").read_bytes())
    code = "import sys; from aerofuse.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "predict", "emoji", "emoji/\U0001f6e9.jpg", *output]
    done = subprocess.run(command, env=environment() | {"PYTHONIOENCODING": "gbk"}, capture_output=True, encoding="gbk")
    assert done.returncode == 1
    assert done.stderr == "aerofuse: emoji/\\U0001f6e9.jpg: no such file\n"
    lines = [line for line in done.stdout.splitlines() if "emoji" in line]
    assert len(lines) == 3
    if output == ["--json"]:
        assert [json.loads(line)["file"] for line in lines] == [f"emoji/{name}" for name in names]
    else:
        assert "emoji/2 \\U0001f6e9 飛機.jpg" in lines[1]
    if output == ["--csv"]:
        cells = csv.DictReader(io.StringIO(done.stdout))
        assert {json.loads(row["type_top5"])[0]["name"] for row in cells} <= set(CLASSES.types)


@pytest.mark.parametrize(
    ("encoding", "console"),
    [("utf-8-sig", "utf-8"), ("utf-8-sig", "gbk"), ("utf-16", "utf-8"), ("utf-8", "utf-8"), ("gbk", "gbk")],
)
def test_a_list_on_stdin_may_begin_with_a_byte_order_mark(
    encoding: str, console: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["飛機/1.jpg", "飛機/2.jpg"]
    content = "".join(f"{name}\r\n" for name in names).encode(encoding)
    stdin = io.TextIOWrapper(io.BytesIO(content), console)
    assert [str(file) for file in list_photos(["-"], read_names(stdin)).files] == names


def test_a_list_on_stdin_may_name_files_with_odd_bytes() -> None:
    stdin = io.TextIOWrapper(io.BytesIO(b"a.jpg\n\xff.jpg\n"), "utf-8")
    assert [os.fsencode(file) for file in list_photos(["-"], read_names(stdin)).files] == [b"a.jpg", b"\xff.jpg"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photos", "--model", "nowhere"], "no model in 'nowhere': no such folder; name a folder with model.json"),
        (["photos", "--model", "photos"], "no model in photos: it has no model.json"),
    ],
)
def test_a_model_that_is_none(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"aerofuse: {message}")
    assert printed.out == ""


@pytest.mark.parametrize(
    "arguments",
    [[], ["photos", "--json", "--csv"], ["photos", "--batch-size", "0"], ["photos", "--device", "abacus"]],
    ids=["no path", "two outputs", "no batch", "no device"],
)
def test_a_mistake_in_the_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["predict", *arguments])
    assert stopped.value.code == 2
    assert "usage: aerofuse predict" in capsys.readouterr().err


def test_neither_the_pipeline_nor_the_compiler_is_imported() -> None:
    code = """
import sys
from aerofuse.cli.main import main

assert main(["predict", "photos/photo-0000.jpg", "--json"]) == 0
heavy = {"mlflow", "dvc", "torch._dynamo", "pandas", "matplotlib", "accelerate", "torchmetrics", "scipy", "onnx"}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
"""
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr


def test_whoever_reads_may_leave() -> None:
    """As `head -1` does: no traceback."""
    code = "import sys; from aerofuse.cli.main import main; sys.exit(main(sys.argv[1:]))"
    files = ["photos/photo-0000.jpg"] * 40
    command = [sys.executable, "-c", code, "predict", *files, "--json", "--batch-size", "1"]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    assert json.loads(process.stdout.readline())["file"] == files[0]
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) in (0, 1)


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], env=environment(), capture_output=True, text=True)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b.jpg", "a.JPEG", "notes.txt", "deep/er/c.png", "deep/d.webp", "odd[1].jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("named", "files"),
    [
        (["b.jpg"], ["b.jpg"]),
        (["b.jpg", "b.jpg"], ["b.jpg", "b.jpg"]),
        (["notes.txt"], ["notes.txt"]),  # named: reading it says what it is
        (["none.jpg"], ["none.jpg"]),
        (["."], ["a.JPEG", "b.jpg", "deep/d.webp", "deep/er/c.png", "odd[1].jpg"]),
        (["deep", "b.jpg"], ["deep/d.webp", "deep/er/c.png", "b.jpg"]),
        (["*.jpg"], ["b.jpg", "odd[1].jpg"]),
        (["**/*.png"], ["deep/er/c.png"]),
        (["odd[1].jpg"], ["odd[1].jpg"]),  # a file of that name, and no pattern
        (["-", "b.jpg"], ["a.JPEG", "deep/d.webp", "deep/er/c.png", "b.jpg"]),
    ],
)
def test_files(folder: Path, named: list[str], files: list[str]) -> None:
    found = list_photos(named, ["a.JPEG\n", "\n", "deep\r\n"])
    assert [str(path) for path in found.files] == files
    assert found.empty == ()


def test_what_stands_for_no_file_is_said(folder: Path) -> None:
    found = list_photos(["empty", "*.tiff", "b.jpg"])
    assert [str(path) for path in found.files] == ["b.jpg"]
    assert [name for name, _ in found.empty] == ["empty", "*.tiff"]
    assert "no photo in this folder (.bmp, .gif" in found.empty[0][1]
    assert found.passed_over == ()
    (folder / "empty/clip.mpg").touch()
    assert list_photos(["empty"]).empty[0][1].endswith("; 1 passed over: clip.mpg")
    assert found.empty[1][1] == "no file matches this pattern"
