"""The pipeline files list, for every stage, exactly the files of the project that the stage's page imports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from aerofuse.backbones.families import FAMILIES
from tests.imports import ROOT, imported_files

STAGES: dict[str, dict[str, Any]] = {
    name: stage
    for file in ("dvc.yaml", "benchmarks/dvc.yaml")
    for name, stage in YAML(typ="safe").load((ROOT / file).read_text(encoding="utf-8"))["stages"].items()
}


def _listed_files(stage: str) -> set[Path]:
    """The project's Python files that a stage depends on; a folder stands for all in it."""
    listed: set[Path] = set()
    for dependency in STAGES[stage]["deps"]:
        path = ROOT / dependency
        if path.suffix == ".py":
            listed.add(path)
        elif dependency.startswith(("src/", "stages/")):
            listed.update(path.rglob("*.py"))
    return {path.relative_to(ROOT) for path in listed}


def _holds_code(path: Path) -> bool:
    # A package's docstring can change nothing.
    return path.name != "__init__.py" or path.parts[0] == "stages"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_lists_the_modules_that_it_imports(stage: str) -> None:
    page = ROOT / "stages" / f"{stage}.py"
    imported = {path for path in imported_files(page) if _holds_code(path)}
    listed = {path for path in _listed_files(stage) if _holds_code(path)}
    assert listed - imported == set(), "listed, but not imported: an edit would re-run the stage for nothing"
    assert imported - listed == set(), "imported, but not listed: an edit would go unnoticed"


@pytest.mark.parametrize("stage", STAGES)
def test_stage_script_and_command_are_one_word(stage: str) -> None:
    assert STAGES[stage]["cmd"].split()[:3] == ["python", "-m", f"stages.{stage}"]
    assert STAGES[stage]["desc"]


def test_the_benchmark_is_a_matrix_over_all_families() -> None:
    assert STAGES["benchmark_memory"]["matrix"] == {"family": list(FAMILIES)}
    folders = {f"reports/benchmark_memory/{family}" for family in FAMILIES}
    assert folders <= set(STAGES["compare_memory"]["deps"])


def test_every_page_is_a_stage() -> None:
    pages = {path.stem for path in (ROOT / "stages").glob("*.py")} - {"__init__"}
    assert pages == set(STAGES)


@pytest.mark.parametrize("package", sorted(path.parent for path in (ROOT / "src/aerofuse").rglob("__init__.py")))
def test_packages_import_nothing(package: Path) -> None:
    """What a module of a package needs is what it imports itself, so that stages can list it."""
    assert imported_files(package / "__init__.py") == {(package / "__init__.py").relative_to(ROOT)}


# The one direction of the house: a package may import those to its right, and none to its left.
ORDER = (
    "training",
    "evaluation",
    "reporting",
    "benchmarks",
    "inference",
    "models",
    "backbones",
    "checkpointing",
    "memory",
    "data",
    "params",
)


@pytest.mark.parametrize("package", ORDER[ORDER.index("benchmarks") :])
def test_no_import_runs_back_up(package: str) -> None:
    above = {Path("src/aerofuse") / name for name in ORDER[: ORDER.index(package)]}
    for path in (ROOT / "src/aerofuse" / package).rglob("*.py"):
        wrong = {file for file in imported_files(path) if above & set(file.parents)}
        assert not wrong, f"{path.relative_to(ROOT)} imports {', '.join(map(str, wrong))}"
