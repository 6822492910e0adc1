from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo
from ruamel.yaml import YAML

from aerofuse.ingest.inputs import INPUTS as LINKS
from tests.imports import ROOT
from tests.pipeline import ENVIRONMENT, git, run_dvc
from tools.studies import experiments, sweep
from tools.studies.experiments import FAILED, MISSING, QUEUED, RUNNING, SUCCESS, Queue, put, read_queue, run_queued
from tools.studies.sweep import INPUTS, Cell, Outcome, fingerprint, grid, summarise, sweep_page


def test_the_queue_is_read_from_dvc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NAME", "EMAIL"):
        for role in ("AUTHOR", "COMMITTER"):
            monkeypatch.setenv(f"GIT_{role}_{name}", ENVIRONMENT[f"GIT_{role}_{name}"])
    monkeypatch.setenv("PATH", ENVIRONMENT["PATH"])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text("stages: {train: {cmd: echo, params: [seed]}}\n")
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    git(tmp_path, "init", "--quiet")
    run_dvc(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "a pipeline")
    commit = git(tmp_path, "rev-parse", "HEAD").strip()
    git(tmp_path, "update-ref", f"refs/exps/{commit[:2]}/{commit[2:]}/seed-2", commit)
    put("seed-1", {"seed": 1}, [])
    statuses = {"seed-1": QUEUED, "seed-2": SUCCESS, "seed-3": MISSING}
    assert read_queue(statuses) == Queue(statuses, has_workers=False)


def test_waiting_ends_where_no_worker_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    state = Queue({"a": RUNNING, "b": QUEUED, "c": SUCCESS}, has_workers=False)
    started: list[int] = []
    monkeypatch.setattr(experiments, "read_queue", lambda names: state)
    monkeypatch.setattr(experiments, "_start_workers", started.append)
    assert run_queued(["a", "b", "c"], jobs=2, poll_s=0.0) == state.statuses
    assert started == [2, 2], "at the beginning, and once more"


def test_the_grid_has_every_cell_once() -> None:
    cells = grid(["concat", "add", "concat"], [0, 3, 0], "0123abcd")
    assert [cell.name for cell in cells] == [
        "sweep-0123abcd-concat-seed0",
        "sweep-0123abcd-add-seed0",
        "sweep-0123abcd-concat-seed3",
        "sweep-0123abcd-add-seed3",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fusion-method", "bogus"], "invalid choice: 'bogus'"),
        (["--seeds", "-1"], "'-1' is not allowed: a whole number of at least 0"),
        (["--seeds", "1.5"], "'1.5' is not allowed"),
        (["--jobs", "0"], "'0' is not allowed: a whole number of at least 1"),
    ],
)
def test_a_bad_option_is_refused_before_anything_is_queued(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        sweep.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_where_there_is_no_pipeline_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sweep.main([]) == 2
    assert "not a git repository" in capsys.readouterr().err


def done(method: str, seed: int, score: float, mae: float = 0.1) -> Outcome:
    return Outcome(Cell(method, seed, f"sweep-0-{method}-seed{seed}"), SUCCESS, {"score": score, "clarity_mae": mae})


def test_methods_are_ranked_by_their_mean_with_its_deviation() -> None:
    """0.80 and 0.90: mean 0.85, sample standard deviation 0.1 / sqrt(2)."""
    failed = Outcome(Cell("add", 1, "sweep-0-add-seed1"), FAILED, {}, ("line 1", "out of luck"))
    outcomes = [done("add", 0, 0.84), failed, done("concat", 0, 0.80), done("concat", 1, 0.90)]
    first, second = summarise(outcomes)
    assert (first.fusion_method, first.n) == ("concat", 2)
    assert first.means["score"] == pytest.approx(0.85)
    assert first.deviations["score"] == pytest.approx(0.0707107, rel=1e-5)
    assert (second.fusion_method, second.n, second.deviations) == ("add", 1, {})
    page = sweep_page(outcomes, "quick")
    assert "| concat          |   2 |    0.8500 ± 0.0707 |            - |" in page
    assert "| add             |   1 |             0.8400 |            - |" in page
    assert "3 of 4 experiments are done" in page
    assert "**sweep-0-add-seed1: failed**; `dvc queue logs sweep-0-add-seed1` shows all" in page
    assert "```\nline 1\nout of luck\n```" in page


@pytest.mark.parametrize("status", [FAILED, QUEUED, RUNNING, MISSING])
def test_a_page_without_any_result_says_what_to_do(status: str) -> None:
    page = sweep_page([Outcome(Cell("add", 1, "sweep-0-add-seed1"), status, {})], "quick")
    assert "0 of 1 experiments are done" in page
    assert f"**sweep-0-add-seed1: {status.lower()}**; " in page


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the pipeline reads, in a repository of its own, which is the working folder."""
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("src/aerofuse/models", "stages"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "a pipeline")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _set_data(folder: Path, **values: Any) -> None:
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    params["data"] |= values
    yaml.dump(params, folder / "params.yaml")


def test_the_fingerprint_is_of_all_that_changes_a_result(pipeline: Path) -> None:
    found = [fingerprint()]
    (pipeline / "README.md").write_text("words")
    git(pipeline, "add", "README.md")
    assert fingerprint() == found[0]
    code = pipeline / "src/aerofuse/models/fusion.py"
    code.write_text(code.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    found.append(fingerprint())
    git(pipeline, "commit", "--quiet", "--all", "--message", "an edit")
    assert fingerprint() == found[1], "committed or not"
    assert git(pipeline, "status", "--short") == ""
    photos = pipeline / "photos"
    photos.mkdir()
    _set_data(pipeline, source="table", root=str(photos), labels=str(photos / "labels.csv"))
    found.append(fingerprint())
    (photos / "labels.csv").write_text("filename,typename\n")
    found.append(fingerprint())
    (photos / "one.jpg").write_bytes(b"1")
    found.append(fingerprint())
    assert len(set(found)) == len(found)


def test_all_that_stages_read_and_none_makes_is_in_the_fingerprint() -> None:
    stages = [stage for stage in Repo(str(ROOT)).index.stages if stage.path_in_repo == "dvc.yaml"]
    made = {out.def_path for stage in stages for out in stage.outs}
    needed = {dependency.def_path for stage in stages for dependency in stage.deps}
    known = (*INPUTS, str(LINKS))  # the photos are looked at file by file, where the parameters name them
    unknown = {name for name in needed - made if not name.startswith(known)}
    assert {name for name in unknown if not any(out.startswith(f"{name}/") for out in made)} == set()
