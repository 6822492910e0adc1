"""The table of docs/experiments.md that says what runs again; its commands are in test_pipeline.py."""

from __future__ import annotations

from typing import Any

import pytest
from dvc.repo import Repo

from tests.imports import ROOT

PAGE = ROOT / "docs/experiments.md"
MODELS = ("single_task", "multi_task", "hybrid")
EVALUATIONS = {f"evaluate@{model}" for model in MODELS}
HYBRID = {"train_hybrid@stage_b", "train_hybrid@stage_c", "evaluate@hybrid", "package", "export", "explain", "compare"}
TRAININGS = {f"train_baseline@{name}" for name in ("single_task", "multi_task")} | {
    f"train_hybrid@stage_{letter}" for letter in "abc"
}
# The rows of the page's table: what changes, and the stages that run again.
AGAIN = {
    "data": {"prepare"} | TRAININGS | EVALUATIONS | HYBRID,
    "seed": TRAININGS | EVALUATIONS | HYBRID,
    "training": TRAININGS | EVALUATIONS | HYBRID,
    "recipes.quick.training": TRAININGS | EVALUATIONS | HYBRID,
    "fusion_method": {"train_hybrid@stage_a"} | HYBRID,
    "recipes.quick.train_stage_a": {"train_hybrid@stage_a"} | HYBRID,
    "recipes.quick.train_stage_c": HYBRID - {"train_hybrid@stage_b"},
    "recipes.quick.train_multi_task": {"train_baseline@multi_task", "evaluate@multi_task", "compare"},
    "compare": {"compare"},
}


STAGES = {stage.addressing: stage for stage in Repo(str(ROOT)).index.stages if stage.path_in_repo == "dvc.yaml"}


def _reads(stage: Any, name: str) -> bool:
    """Whether a stage depends on the parameter, or on a part of it."""
    params = [param for dependency in stage.deps if hasattr(dependency, "params") for param in dependency.params]
    return any(param == name or param.startswith(f"{name}.") for param in params)


def _with_followers(names: set[str]) -> set[str]:
    """Return the stages named, and all that read what they write, directly or through others."""
    outputs = {out.def_path for name in names for out in STAGES[name].outs}
    followers = {
        name
        for name, stage in STAGES.items()
        if any(out == dep.def_path or out.startswith(f"{dep.def_path}/") for out in outputs for dep in stage.deps)
    }
    return names if followers <= names else _with_followers(names | followers)


@pytest.mark.parametrize("change", AGAIN)
def test_what_runs_again(change: str) -> None:
    readers = {name for name, stage in STAGES.items() if _reads(stage, change)} - {"check_params"}
    assert _with_followers(readers) == AGAIN[change]
    assert f"`{change}`" in PAGE.read_text(encoding="utf-8")
