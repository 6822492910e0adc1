"""The pipeline files list, for every stage, the folders and files that the stage's page imports, and little else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from aerofuse.backbones.families import FAMILIES
from tests.imports import ROOT, imported_files

_LEAST_USED = 0.8  # of the files of a folder that a stage lists
_FACE = Path("src/aerofuse/__init__.py")


def _stages() -> dict[str, dict[str, Any]]:
    """Return the stages of both files by name, a group of `foreach` as one."""
    found: dict[str, dict[str, Any]] = {}
    for file in ("dvc.yaml", "benchmarks/dvc.yaml"):
        for name, stage in YAML(typ="safe").load((ROOT / file).read_text(encoding="utf-8"))["stages"].items():
            found[name] = stage.get("do", stage)
    return found


STAGES = _stages()
PAGES = {name: "train" if name.startswith("train_") else name for name in STAGES}


def _imported(stage: str) -> set[Path]:
    page = ROOT / "stages" / f"{PAGES[stage]}.py"
    return {path for path in imported_files(page) if _holds_code(path) and path != _FACE}


def _code_in(dependency: str) -> set[Path]:
    """Return the Python files that hold code, of a file or a folder of the project."""
    path = ROOT / dependency
    files = [path] if path.suffix == ".py" else path.rglob("*.py")
    return {file.relative_to(ROOT) for file in files if _holds_code(file.relative_to(ROOT))}


def _listed(stage: str) -> list[str]:
    return [name for name in STAGES[stage]["deps"] if name.startswith(("src/", "stages/", "tools/"))]


def _holds_code(path: Path) -> bool:
    # A package's docstring can change nothing.
    return path.name != "__init__.py" or "import" in (ROOT / path).read_text(encoding="utf-8").rpartition('"""')[2]


@pytest.mark.parametrize("stage", STAGES)
def test_every_imported_file_is_covered(stage: str) -> None:
    listed = {path for dependency in _listed(stage) for path in _code_in(dependency)}
    assert _imported(stage) - listed == set(), "imported, but not listed: an edit would go unnoticed"


@pytest.mark.parametrize("stage", STAGES)
def test_what_is_listed_is_used(stage: str) -> None:
    imported = _imported(stage)
    for dependency in _listed(stage):
        files = _code_in(dependency)
        if files:
            share = len(files & imported) / len(files)
            assert share >= _LEAST_USED, f"{dependency}: only {share:.0%} is used; an edit would re-run it for nothing"


@pytest.mark.parametrize("stage", STAGES)
def test_stage_script_and_command_are_one_word(stage: str) -> None:
    assert STAGES[stage]["cmd"].split()[:3] == ["python", "-m", f"stages.{PAGES[stage]}"]
    assert STAGES[stage]["desc"]


def test_the_benchmark_is_a_matrix_over_all_families() -> None:
    assert STAGES["benchmark_memory"]["matrix"] == {"family": list(FAMILIES)}
    assert "reports/benchmark_memory" in STAGES["compare_memory"]["deps"]


def test_every_page_is_a_stage() -> None:
    pages = {path.stem for path in (ROOT / "stages").glob("*.py")} - {"__init__"}
    assert pages == set(PAGES.values())


PUBLIC = {"aerofuse", "backbones"}  # packages whose names users import
PACKAGES = sorted(path.parent for path in (ROOT / "src/aerofuse").rglob("__init__.py"))


@pytest.mark.parametrize("package", [path for path in PACKAGES if path.name not in PUBLIC], ids=lambda path: path.name)
def test_packages_import_nothing(package: Path) -> None:
    """What a module of a package needs is what it imports itself, so that stages can list it."""
    assert imported_files(package / "__init__.py") == {(package / "__init__.py").relative_to(ROOT)}


# The one direction of the house: a package may import those after it, and none before it.
ORDER = (
    "cli", "tuning", "serving", "demo", "review", "report", "ingest", "synthetic", "training", "tracking", "plotting",
    "comparison", "inference", "metrics", "models", "data", "backbones", "planning", "checkpointing", "memory",
    "common",
)  # fmt: skip


def test_the_order_has_every_package() -> None:
    assert set(ORDER) == {path.name for path in PACKAGES} - {"aerofuse"}


@pytest.mark.parametrize("package", ORDER)
def test_no_import_runs_back_up(package: str) -> None:
    above = {Path("src/aerofuse") / name for name in ORDER[: ORDER.index(package)]}
    for path in (ROOT / "src/aerofuse" / package).rglob("*.py"):
        wrong = {file for file in imported_files(path) if above & set(file.parents)}
        assert not wrong, f"{path.relative_to(ROOT)} imports {', '.join(map(str, wrong))}"
