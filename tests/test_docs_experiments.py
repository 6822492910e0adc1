"""The table of docs/experiments.md that says what runs again; its commands are in test_pipeline.py."""

from __future__ import annotations

from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.imports import ROOT

PAGE = ROOT / "docs/experiments.md"
MODELS = ("single_task", "multi_task", "hybrid")
EVALUATIONS = {f"evaluate@{model}" for model in MODELS}
HYBRID = {"train_stage_b", "train_stage_c", "evaluate@hybrid", "package", "export", "explain", "compare"}
TRAININGS = {f"train_{name}" for name in ("single_task", "multi_task", "stage_a", "stage_b", "stage_c")}
# The rows of the page's table: what changes, and the stages that run again.
AGAIN = {
    "data": {"prepare"} | TRAININGS | EVALUATIONS | HYBRID,
    "seed": TRAININGS | EVALUATIONS | HYBRID,
    "recipes.${recipe}.training": TRAININGS | EVALUATIONS | HYBRID,
    "fusion_method": {"train_stage_a"} | HYBRID,
    "recipes.${recipe}.train_stage_a": {"train_stage_a"} | HYBRID,
    "recipes.${recipe}.train_stage_c": HYBRID - {"train_stage_b"},
    "recipes.${recipe}.train_multi_task": {"train_multi_task", "evaluate@multi_task", "compare"},
    "compare": {"compare"},
}


def _stages() -> dict[str, dict[str, Any]]:
    """Those of dvc.yaml; a matrix is a stage for each of its items."""
    text = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    read = YAML(typ="safe").load
    found = {}
    for name, stage in read(text)["stages"].items():
        for item in stage["matrix"]["model"] if "matrix" in stage else [""]:
            whole = read(text.replace("${item.model}", item))["stages"][name]
            found[f"{name}@{item}" if item else name] = whole
    return found


STAGES = _stages()


def _reads(stage: dict[str, Any], name: str) -> bool:
    return any(isinstance(param, str) and (param == name or param.startswith(f"{name}.")) for param in stage["params"])


def _after(stages: set[str]) -> set[str]:
    """`stages`, and all that read what they write, directly or through others."""
    found = set(stages)
    for name, stage in STAGES.items():
        written = {
            path
            for other in found
            for kind in ("outs", "metrics")
            for output in STAGES[other].get(kind, [])
            for path in ([output] if isinstance(output, str) else output)
        }
        if written & set(stage["deps"]):
            found.add(name)
    return found if found == stages else _after(found)


@pytest.mark.parametrize("change", AGAIN)
def test_what_runs_again(change: str) -> None:
    readers = {name for name, stage in STAGES.items() if _reads(stage, change)} - {"check_params"}
    assert _after(readers) == AGAIN[change]
    named = change.replace("${recipe}", "quick")
    assert f"`{named}`" in PAGE.read_text(encoding="utf-8")
