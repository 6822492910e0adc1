from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aerofuse.plotting.wording import MODELS
from aerofuse.tuning.repository import find_experiment, read_metrics
from tools.benchmarks import memory
from tools.studies import initialisation
from tools.studies.experiments import run_experiment
from tools.studies.initialisation import initialisation_page


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit_metrics(score: float) -> str:
    Path("metrics.json").write_text(json.dumps({"score": score}))
    git("add", "metrics.json")
    git("-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", str(score))
    return git("rev-parse", "HEAD")


def test_an_experiment_is_found_by_its_name_and_where_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    git("init", "-q")
    baselines = [commit_metrics(0.1), commit_metrics(0.2)]
    for baseline, score in zip(baselines, (0.3, 0.4), strict=True):
        git("checkout", "-q", baseline)
        found = commit_metrics(score)
        git("update-ref", f"refs/exps/{baseline[:2]}/{baseline[2:]}/seed-1", found)
    for baseline, score in zip(baselines, (0.3, 0.4), strict=True):
        revision = find_experiment("seed-1", baseline)
        assert read_metrics(["metrics.json"], revision) == {"metrics.json": {"score": score}}
    Path("metrics.json").write_text('{"score": 0.5}')
    assert read_metrics(["metrics.json"]) == {"metrics.json": {"score": 0.5}}
    with pytest.raises(RuntimeError, match="seed-2"):
        find_experiment("seed-2", baselines[0])


def test_parameters_that_an_experiment_before_left_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed `dvc exp run --temp` leaves its parameters in the workspace; the next one would take them."""
    monkeypatch.chdir(tmp_path)
    git("init", "-q")
    Path("params.yaml").write_text("seed: 0")
    git("add", "params.yaml")
    commit_metrics(0.1)
    Path("params.yaml").write_text("seed: 1")
    with pytest.raises(RuntimeError, match="is not as committed"):
        run_experiment("seed-2", {"seed": 2})


@pytest.mark.parametrize("main", [initialisation.main, memory.main])
def test_names_are_checked_and_may_be_left_out(main: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    class Started(Exception):  # noqa: N818
        pass

    def start(*_arguments: object, **_keywords: object) -> None:
        raise Started

    monkeypatch.setattr(initialisation, "run_experiment", start)
    monkeypatch.setattr(memory, "measure", start)
    with pytest.raises(Started):
        main([])
    with pytest.raises(SystemExit):
        main(["nonsense"])


def test_every_model_stands_with_both_weights() -> None:
    def metrics(top1: float) -> dict[str, dict[str, Any]]:
        return {f"metrics/evaluate/{model}.json": {model: {"type_top1": top1}} for model in MODELS}

    page = initialisation_page(metrics(0.9), metrics(0.4), list(MODELS))
    assert page.count("90.00 %") == page.count("40.00 %") == len(MODELS)
