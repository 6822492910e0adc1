"""Workers on three machines, each with a clone of its own, share a study in a real PostgreSQL; some are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.pipeline import git, run_dvc
from tests.tracking.servers import PostgreSQL
from tests.tuning.small_pipeline import Tuning, make_repository, wait_until, worker_of

pytestmark = pytest.mark.slow

METHODS, SEEDS = ("concat", "add", "attention"), ("0", "1", "2", "3")
GRID = (f"fusion_method={','.join(METHODS)}", f"seed={','.join(SEEDS)}")
KILLED = ("concat-1", "add-2", "attention-0")  # while they run


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    with tempfile.TemporaryDirectory() as folder:  # which another user may enter
        started = PostgreSQL(Path(folder))
        started.start()
        yield started
        started.stop()


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> list[Tuning]:
    """The first has started the study; all push to one git remote and one DVC remote."""
    folder = tmp_path_factory.mktemp("machines")
    (folder / "test").mkdir()
    made = make_repository(folder / "made")
    origin = folder / "origin.git"
    git(folder, "clone", "--quiet", "--bare", str(made), str(origin))
    machines = []
    for number in range(3):
        clone = folder / f"machine{number}"
        git(folder, "clone", "--quiet", str(origin), str(clone))
        run_dvc(clone, "remote", "add", "--local", "--default", "team", str(folder / "remote"))
        machines.append(Tuning(clone, folder / "test"))
    return machines


def _storage(server: PostgreSQL) -> str:
    return server.uri.replace("+psycopg2", "")  # as people write it


@pytest.fixture(scope="module")
def finished(server: PostgreSQL, machines: list[Tuning]) -> str:
    """The grid, by three workers, each of which is killed once while it runs an experiment; the study's output."""
    first, test = machines[0], machines[0].test_folder
    where = ("--storage", _storage(server), "--heartbeat", "5")
    for name in KILLED:
        (test / f"hold-{name}").touch()
    study = first.start(*GRID, *where, "--workers", "0")
    assert study.stdout is not None
    assert study.stdout.readline().endswith(": 12 trials\n")
    workers = {machine.repository: _start(machine, where) for machine in machines}
    for name in KILLED:
        wait_until(lambda name=name: any(line[0] == name for line in first.lines("runs")))  # type: ignore[misc]
        line = next(line for line in first.lines("runs") if line[0] == name)
        machine = next(machine for machine in machines if str(machine.repository) in line[2])
        os.kill(worker_of(line), signal.SIGKILL)
        workers[machine.repository].wait()
        psutil.wait_procs([psutil.Process(int(line[1]))] if psutil.pid_exists(int(line[1])) else [], timeout=60)
        assert not _runs(int(line[1])), "what it has started ends with it"
        (test / f"hold-{name}").unlink()
        workers[machine.repository] = _start(machine, where)  # as a scheduler would
    output = study.communicate(timeout=300)[0]
    assert study.returncode == 0, output
    for worker in workers.values():
        assert worker.wait(timeout=120) == 0
    return output


def _start(machine: Tuning, where: tuple[str, ...]) -> subprocess.Popen[str]:
    return machine.start("--worker", *where)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_all_are_done_once_though_workers_were_killed(finished: str, machines: list[Tuning]) -> None:
    cells = [f"{method}-{seed}" for method in METHODS for seed in SEEDS]
    assert machines[0].states() == dict.fromkeys(cells, "complete")
    assert Counter(line[0] for line in machines[0].lines("done")) == Counter(cells)
    begun = Counter(line[0] for line in machines[0].lines("runs"))
    assert {name: number for name, number in begun.items() if number > 1} == dict.fromkeys(KILLED, 2)
    roots = {Path(line[2]).parents[3].name for line in machines[0].lines("runs")}
    assert roots == {"machine0", "machine1", "machine2"}


def test_the_metrics_are_those_of_one_process(finished: str, machines: list[Tuning], tmp_path: Path) -> None:
    together = machines[0].metrics()
    alone = Tuning(tmp_path / "alone", tmp_path)
    git(tmp_path, "clone", "--quiet", str(machines[0].repository.parent / "origin.git"), str(alone.repository))
    status, output = alone.run(*GRID)
    assert status == 0, output
    assert alone.metrics() == together
    scores = sorted(metrics["score"] for metrics in together.values())
    assert scores == pytest.approx([base + int(seed) / 100 for base in (0.5, 0.6, 0.8) for seed in SEEDS])


def test_results_have_travelled(finished: str, machines: list[Tuning], tmp_path: Path) -> None:
    names = sorted(outcome["experiment"] for outcome in machines[0].report()["outcomes"])
    clone = machines[0].repository.parent / "fourth"
    git(tmp_path, "clone", "--quiet", str(machines[0].repository.parent / "origin.git"), str(clone))
    assert sorted(run_dvc(clone, "exp", "list", "--name-only", "origin").stdout.split()) == names
    run_dvc(clone, "remote", "add", "--local", "--default", "team", str(clone.parent / "remote"))
    run_dvc(clone, "exp", "pull", "origin", names[0])
    run_dvc(clone, "exp", "apply", names[0])
    assert (clone / "models/hybrid/model").is_file()


def test_a_worker_with_other_code_is_refused(finished: str, machines: list[Tuning], server: PostgreSQL) -> None:
    code = machines[1].repository / "stages/train.py"
    text = code.read_text(encoding="utf-8")
    code.write_text(f"{text}\n", encoding="utf-8")
    status, output = machines[1].run("--worker", "--storage", _storage(server))
    code.write_text(text, encoding="utf-8")
    assert status == 2
    assert "was made with other code, parameters or photos" in output
    assert git(machines[1].repository, "rev-parse", "HEAD")[:10] in output


def test_a_storage_that_goes_away_ends_the_worker(server: PostgreSQL, machines: list[Tuning], finished: str) -> None:
    """Where the storage is back, the same command goes on."""
    test = machines[0].test_folder
    (test / "hold-concat-50").touch()
    command = ("fusion_method=concat", "seed=50", "--storage", _storage(server), "--heartbeat", "5")
    process = machines[0].start(*command)
    wait_until(lambda: machines[0].lines("runs")[-1][0] == "concat-50")
    server.kill()
    (test / "hold-concat-50").unlink()
    output = process.communicate(timeout=120)[0]
    server.start()
    assert process.returncode == 2
    assert "the storage postgresql" in output
    assert "Traceback" not in output
    status, output = machines[0].run(*command)
    assert status == 0, output
