from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from aerofuse.cli.main import main
from tests.imports import ROOT
from tests.pipeline import ENVIRONMENT, git
from tests.tuning.small_pipeline import make_repository

NAMES = ["seed=0,1", "fusion_method=concat"]


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, for the command takes signals."""
    program = "import sys; from aerofuse.cli.main import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", program, "tune", *arguments],
        cwd=folder,
        env=ENVIRONMENT | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repository(tmp_path_factory.mktemp("refused") / "repository")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either --worker, or what a study varies"),
        (["--worker", "seed=0,1"], "give either --worker, or what a study varies"),
        (["seed"], "'seed' is not NAME=VALUES"),
        (["seed=0,1", "seed=2"], "seed is given twice"),
    ],
)
def test_a_command_that_means_nothing_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--workers", "-1"], ["--trials", "0"], ["--model", "bogus"]])
def test_a_bad_option_is_refused(option: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["tune", *NAMES, *option])
    assert stopped.value.code == 2


def test_without_its_extra_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    for name in [name for name in sys.modules if name.startswith("aerofuse.tuning")]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["tune", *NAMES]) == 2
    assert "pip install 'aerofuse[tune]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fusion_method=bogus,add"], "'bogus' is not allowed"),
        (["seed=0..9"], "seed is a range"),
        (["--worker"], "there is no storage .resume/tune/studies.db"),
        (["seed=0,1", "--storage", "postgresql://me:secret@127.0.0.1:9/tune"], "Connection refused"),
    ],
)
def test_what_cannot_run_leaves_nothing_behind(arguments: list[str], message: str, repository: Path) -> None:
    done = _run(repository, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(repository.rglob("studies.db"))
    assert not (repository / "reports").exists()
    assert git(repository, "status", "--short") == ""


def test_where_there_is_no_repository_it_says_so(tmp_path: Path) -> None:
    done = _run(tmp_path, *NAMES)
    assert done.returncode == 2
    assert "not a git repository" in done.stderr
