"""Reading and checking `params.yaml`: the whole file, or the one section that a stage needs.

What all recipes share stands in the top-level section `training`. The `training` of a recipe holds what differs.
"""

from __future__ import annotations

import copy
import difflib
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

PARAMS_FILE = Path("params.yaml")
SHARED = "training"  # the section that a recipe overrides key by key

Model = TypeVar("Model", bound=BaseModel)
Value = TypeVar("Value")


def path_text(value: object) -> object:
    """Return a number or a date as its text, for YAML reads the folder `2024` as one; and a text with `~` expanded."""
    if isinstance(value, int | float | date) and not isinstance(value, bool):
        return str(value)
    return str(Path(value).expanduser()) if isinstance(value, str) and value.startswith("~") else value


AS_PATH = BeforeValidator(path_text)  # of a field that names a file or folder


class Section(BaseModel):
    """A typed, frozen part of `params.yaml`; unknown keys are refused, and so is a number given as a string."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def read_params_file(path: Path = PARAMS_FILE) -> dict[str, Any]:
    """Return the file as plain dictionaries, as it stands there; `resolve` gives what it means.

    A file is parsed once per process while it does not change. Raises `FileNotFoundError` where there is none,
    `ValueError` where it is not a YAML mapping.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no {path} here ({Path.cwd()}); run from the root of the repository")
    status = path.stat()
    try:
        content = _parse(path.absolute(), status.st_mtime_ns, status.st_size)
    except YAMLError as error:
        problem = str(error)
        if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
            problem = f"{error.problem}, line {error.problem_mark.line + 1}"
        raise ValueError(f"{path} is not valid YAML: {problem}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold `name: value` pairs, not {type(content).__name__}")
    return copy.deepcopy(content)


@lru_cache(maxsize=8)
def _parse(path: Path, _mtime_ns: int, _size_bytes: int) -> Any:
    """Return what stands in the file; nobody may change it. The time and the size tell a changed file."""
    # DVC's own reader. `dvc exp run -S` rewrites the file as YAML 1.2, where `no` and `5e-05` stand unquoted for
    # a word and a number; PyYAML reads YAML 1.1 and would take them for False and a word.
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


def resolve(content: object) -> Any:
    """Return the content of a file with the `training` of each recipe complete: its own keys over the shared ones.

    What is no mapping is left for the schema to refuse.
    """
    if not isinstance(content, dict):
        return content
    shared, recipes = content.get(SHARED), content.get("recipes")
    if not isinstance(shared, dict) or not isinstance(recipes, dict):
        return content
    resolved = {
        name: recipe | {SHARED: _override(shared, recipe[SHARED])}
        if isinstance(recipe, dict) and isinstance(recipe.get(SHARED), dict)
        else recipe
        for name, recipe in recipes.items()
    }
    return content | {"recipes": resolved}


def _override(shared: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    both = {
        key: _override(shared[key], value)
        for key, value in own.items()
        if isinstance(value, dict) and isinstance(shared.get(key), dict)
    }
    return shared | own | both


def find_place(content: object, place: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Return where the resolved value of `place` stands in the unresolved `content`: there, or in the shared section.

    `("recipes", "base", "training", "gradient_clip")` becomes `("training", "gradient_clip")` where recipe `base` has
    no such key of its own.
    """
    shared = place[2:]
    if place[:1] == ("recipes",) and shared[:1] == (SHARED,) and not _has(content, place) and _has(content, shared):
        return shared
    return place


def _has(content: Any, place: tuple[int | str, ...]) -> bool:
    for key in place:
        if not isinstance(content, dict) or key not in content:
            return False
        content = content[key]
    return True


def validate(schema: type[Model], content: object, where: str) -> Model:
    """Return `content` as a `schema`, resolved.

    Raises `ValueError` naming every bad field by the place where it stands, its value and what is allowed.
    """
    return _validate(schema, resolve(content), where, content)


def _validate(
    schema: type[Model], section: object, where: str, content: object, parents: tuple[str, ...] = ()
) -> Model:
    """Return `section` as a `schema`; it is the resolved section `parents` of the unresolved `content`."""
    try:
        return schema.model_validate(section)
    except ValidationError as error:
        problems = _describe(error, schema, content, parents)
        raise ValueError(f"{where} cannot be used:\n{problems}") from None


def load_section(schema: type[Model], name: str, path: Path = PARAMS_FILE) -> Model:
    """Read the section `name`, such as `compare` or `recipes.{recipe}.training`, where `{recipe}` is the active one.

    The `training` of a recipe comes with what all recipes share.
    Raises `ValueError` where the section is missing or its values are not allowed.
    """
    content = read_params_file(path)
    section = _find(resolve(content), name, path)
    return _validate(schema, section, f"{path}, section {name!r}", content, _keys(content, name))


def load_value(kind: type[Value], name: str, path: Path = PARAMS_FILE) -> Value:
    """Read the single value `name`, such as `seed`. Raises `ValueError` where it is not of `kind`."""
    content = _find(resolve(read_params_file(path)), name, path)
    try:
        return TypeAdapter(kind).validate_python(content, strict=True)
    except ValidationError as error:
        raise ValueError(f"{path}: {name} is {content!r}: {error.errors()[0]['msg']}") from None


def _keys(content: dict[str, Any], name: str) -> tuple[str, ...]:
    return tuple(name.format(recipe=content.get("recipe")).split("."))


def _find(content: dict[str, Any], name: str, path: Path) -> Any:
    found: Any = content
    keys = _keys(content, name)
    for key in keys:
        if not isinstance(found, dict) or key not in found:
            raise ValueError(f"{path} has no {'.'.join(keys)!r} (missing: {key!r})")
        found = found[key]
    return found


def _describe(error: ValidationError, schema: type[BaseModel], content: object, parents: tuple[str, ...]) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        whole = (*parents, *problem["loc"])
        place = find_place(content, whole)
        field = ".".join(str(part) for part in (problem["loc"] if place == whole else place)) or "the whole"
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            allowed = _allowed_names(schema, problem["loc"][:-1])
            near = difflib.get_close_matches(str(problem["loc"][-1]), allowed, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            lines.append(f"  {field}: unknown name{hint} Allowed here: {', '.join(allowed)}")
        elif problem["type"] == "missing":
            inherits = whole[0] == "recipes" and SHARED in whole[2:-1]
            also = f", here and in the section {SHARED} of all recipes" if inherits else ""
            lines.append(f"  {field}: missing{also}")
        elif problem["loc"]:
            lines.append(f"  {field}: {problem['input']!r} is not allowed: {message}")
        else:
            lines.append(f"  {message}")
    return "\n".join(dict.fromkeys(lines))  # a shared value is bad once, not once per recipe


def _allowed_names(schema: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The field names that the schema knows at `location`."""
    current: Any = schema
    for part in location:
        if isinstance(current, type) and issubclass(current, BaseModel):
            current = current.model_fields[str(part)].annotation
        else:  # a mapping of sections: dict[str, Section]
            current = current.__args__[1]
    if isinstance(current, type) and issubclass(current, BaseModel):
        return list(current.model_fields)
    return []
