"""Rules of the house that hold over all code: no class name stands for two things."""

from __future__ import annotations

import ast
from collections import defaultdict

from tests.imports import ROOT


def test_no_class_name_is_used_twice() -> None:
    """With or without an underscore in front: a reader would have to compare the two."""
    places: dict[str, list[str]] = defaultdict(list)
    for folder in ("src", "stages", "tools"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    places[node.name.lstrip("_")].append(str(path.relative_to(ROOT)))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}
