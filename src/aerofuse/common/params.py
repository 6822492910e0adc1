"""Reading and checking `params.yaml`: the whole file, or the one section that a stage needs."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

PARAMS_FILE = Path("params.yaml")

Model = TypeVar("Model", bound=BaseModel)
Value = TypeVar("Value")


class Section(BaseModel):
    """A typed, frozen part of `params.yaml`; unknown keys are refused, and so is a number given as a string."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def read_params_file(path: Path = PARAMS_FILE) -> dict[str, Any]:
    """Read the file as plain dictionaries.

    Raises `FileNotFoundError` where there is none, `ValueError` where it is not a YAML mapping.
    """
    # DVC's own reader. `dvc exp run -S` rewrites the file as YAML 1.2, where `no` and `5e-05` stand unquoted for
    # a word and a number; PyYAML reads YAML 1.1 and would take them for False and a word.
    if not path.is_file():
        raise FileNotFoundError(f"no {path} here ({Path.cwd()}); run from the root of the repository")
    try:
        content = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {_yaml_problem(error)}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold `name: value` pairs, not {type(content).__name__}")
    return content


def validate(schema: type[Model], content: object, where: str) -> Model:
    """Return `content` as a `schema`. Raises `ValueError` naming every bad field, its value and what is allowed."""
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        raise ValueError(f"{where} cannot be used:\n{_describe(error, schema)}") from None


def load_section(schema: type[Model], name: str, path: Path = PARAMS_FILE) -> Model:
    """Read the section `name`, such as `compare` or `recipes.{recipe}.training`, where `{recipe}` is the active one.

    Raises `ValueError` where the section is missing or its values are not allowed.
    """
    content = read_params_file(path)
    section = _find(content, name, path)
    return validate(schema, section, f"{path}, section {name!r}")


def load_value(kind: type[Value], name: str, path: Path = PARAMS_FILE) -> Value:
    """Read the single value `name`, such as `seed`. Raises `ValueError` where it is not of `kind`."""
    content = _find(read_params_file(path), name, path)
    try:
        return TypeAdapter(kind).validate_python(content, strict=True)
    except ValidationError as error:
        raise ValueError(f"{path}: {name} is {content!r}: {error.errors()[0]['msg']}") from None


def _find(content: dict[str, Any], name: str, path: Path) -> Any:
    found: Any = content
    for key in name.format(recipe=content.get("recipe")).split("."):
        if not isinstance(found, dict) or key not in found:
            raise ValueError(f"{path} has no {name.format(recipe=content.get('recipe'))!r} (missing: {key!r})")
        found = found[key]
    return found


def _yaml_problem(error: YAMLError) -> str:
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem}, line {error.problem_mark.line + 1}"
    return str(error)


def _describe(error: ValidationError, schema: type[BaseModel]) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        field = ".".join(str(part) for part in problem["loc"]) or "the whole"
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            allowed = _allowed_names(schema, problem["loc"][:-1])
            near = difflib.get_close_matches(str(problem["loc"][-1]), allowed, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            lines.append(f"  {field}: unknown name{hint} Allowed here: {', '.join(allowed)}")
        elif problem["type"] == "missing":
            lines.append(f"  {field}: missing")
        elif problem["loc"]:
            lines.append(f"  {field}: {problem['input']!r} is not allowed: {message}")
        else:
            lines.append(f"  {message}")
    return "\n".join(lines)


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
