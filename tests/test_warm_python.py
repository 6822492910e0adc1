"""The `python` of the long tests is like any other, but for the time that it takes to start."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.imports import ROOT
from tests.new_python import check_in_new_python
from tests.pipeline import warm_environment

pytestmark = pytest.mark.slow


def _run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = warm_environment() | variables
    return subprocess.run(["python", *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def test_a_module_of_the_folder_runs_with_its_arguments_and_its_environment(tmp_path: Path) -> None:
    (tmp_path / "page.py").write_text(
        "import os, sys\nprint(__name__, sys.argv, os.environ['WORD'], os.getcwd(), 'torch' in sys.modules)\n"
    )
    done = _run(tmp_path, "-m", "page", "--one", "two", WORD="said")
    assert done.stdout.split("\n")[0] == f"__main__ {[str(tmp_path / 'page.py'), '--one', 'two']} said {tmp_path} True"
    assert (done.returncode, done.stderr) == (0, "")


def test_as_torchrun_starts_it(tmp_path: Path) -> None:
    assert _run(tmp_path, "-u", "-c", "import sys; print('torch' in sys.modules)").stdout == "True\n"


def test_no_file_of_the_project_is_imported_beforehand(tmp_path: Path) -> None:
    done = _run(
        tmp_path, "-c", "import sys; print([n for n in sys.modules if n.split('.')[0] in ('aerofuse', 'stages')])"
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("raise SystemExit(3)", 3, ""),
        ("raise SystemExit('a reason')", 1, "a reason\n"),
        ("raise ValueError('a fault')", 1, "ValueError: a fault\n"),
        ("import os; os.kill(os.getpid(), 9)", -9, ""),
    ],
)
def test_how_it_ends(code: str, status: int, said: str, tmp_path: Path) -> None:
    done = _run(tmp_path, "-c", code)
    assert done.returncode == status
    assert done.stderr.endswith(said)


def test_what_is_registered_for_the_end_is_done(tmp_path: Path) -> None:
    assert _run(tmp_path, "-c", "import atexit; atexit.register(print, 'the end')").stdout == "the end\n"


_WAITS = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to stop"))
print(os.getpid(), flush=True)
time.sleep(100)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_reaches_the_process(number: signal.Signals, tmp_path: Path) -> None:
    process = subprocess.Popen(
        ["python", "-c", _WAITS], env=warm_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    own = int(process.stdout.readline())
    assert own != process.pid
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == ((1, "told to stop\n") if number == signal.SIGTERM else (-9, ""))
    deadline = time.monotonic() + 30
    while _is_there(own):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


# The others are started cold as stages of a pipeline, in test_pipeline_experiments.py and test_pipeline_killed.py.
@pytest.mark.parametrize("stage", ["package", "export", "explain", "compare"])
def test_a_stage_also_imports_all_in_a_python_that_is_cold(stage: str) -> None:
    check_in_new_python(f"import sys; assert 'torch' not in sys.modules; import stages.{stage}", ROOT)
