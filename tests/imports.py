"""Which of the project's own files a Python file imports, directly or through others, read from the source."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# The public face imports a function when it is first asked for: a module that imports the package asks for none.
_FACE = ROOT / "src/aerofuse/__init__.py"


def imported_files(page: Path) -> set[Path]:
    """The project's files that `page` imports, itself included, relative to the root of the repository."""
    found: set[Path] = set()
    waiting = [page]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        if path == _FACE:
            continue
        for module in _imports(path):
            waiting.extend(_files_of(module))
    return {path.relative_to(ROOT) for path in found}


@functools.cache
def _imports(path: Path) -> set[str]:
    """Dotted names that a file imports anywhere, inside functions too; `from a import b` counts as a and a.b.

    What is imported for the type checker alone counts for nothing: it is not there when the file runs.
    """
    names: set[str] = set()
    for node in _nodes_that_run(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            raise AssertionError(f"{path}: a relative import; the house imports by full names")
    return names


def _nodes_that_run(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        yield from _nodes_that_run(child)


def _files_of(module: str) -> list[Path]:
    """The file of a project module and the packages around it that hold code."""
    parts = module.split(".")
    base = ROOT / "src" if parts[0] == "aerofuse" else ROOT
    files = [base.joinpath(*parts[:depth], "__init__.py") for depth in range(1, len(parts) + 1)]
    files.append(base.joinpath(*parts).with_suffix(".py"))
    return [path for path in files if path.is_file() and parts[0] in {"aerofuse", "stages", "tools"}]
