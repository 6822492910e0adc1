"""What a study varies: names of params.yaml, each with values to choose from or a range."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna import Trial
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from aerofuse.common.params import PARAMS_FILE, read_params_file, validate
from aerofuse.pipeline_params import Params

_RANGE = re.compile(r"(?P<low>[^,]+?)\.\.(?P<high>[^,:]+)(?P<log>:log)?")
_OPENING, _CLOSING = "[{", "]}"


@dataclass(frozen=True)
class Setting:
    """A parameter and how it varies: between `choices`, or where `is_range` from the first of two to the second.

    A user writes `seed=0,1,2`, `recipes.quick.train_stage_c.epochs=1..4` or `...learning_rate=1e-5..1e-2:log`. Choices
    are texts, as `dvc exp run -S` takes them.
    """

    name: str
    choices: tuple[str, ...]
    is_range: bool = False
    is_logarithmic: bool = False

    @classmethod
    def parse(cls, name: str, values: str) -> Setting:
        """Read what stands after `NAME=`. Raises `ValueError` where it cannot be read."""
        if found := _RANGE.fullmatch(values):
            setting = cls(name, (found["low"], found["high"]), True, found["log"] is not None)
            setting._check_ends()
            return setting
        return cls(name, tuple(dict.fromkeys(_split(name, values))))

    def draw(self, trial: Trial) -> str:
        """Return the value of a trial, which Optuna draws unless the trial has one already."""
        if not self.is_range:
            return str(trial.suggest_categorical(self.name, self.choices))
        low, high = self._ends()
        if isinstance(low, int) and isinstance(high, int):
            return str(trial.suggest_int(self.name, low, high, log=self.is_logarithmic))
        return repr(trial.suggest_float(self.name, low, high, log=self.is_logarithmic))

    def _ends(self) -> tuple[float, float]:
        low, high = self.choices
        try:
            return int(low), int(high)
        except ValueError:
            return float(low), float(high)

    def _check_ends(self) -> None:
        try:
            low, high = self._ends()
        except ValueError:
            low = high = 0
        if not low < high or (self.is_logarithmic and low <= 0):
            text = "..".join(self.choices)
            raise ValueError(f"{self.name}={text}: a range is LOW..HIGH in numbers, and with :log both are above 0")


def _split(name: str, text: str) -> list[str]:
    """Return the parts between commas; those inside of brackets and braces divide nothing."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in _OPENING) - (letter in _CLOSING)
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    parts = [part.strip() for part in parts]
    if depth != 0 or not all(parts):
        raise ValueError(f"{name}={text}: values stand between commas, and each bracket is closed")
    return parts


def check_settings(settings: Sequence[Setting]) -> None:
    """See that the pipeline takes each value on its own. Raises `ValueError` with the name and what is allowed."""
    content = read_params_file()
    names = {setting.name for setting in settings}
    for setting in settings:
        section, _, rest = setting.name.partition(".")
        if section == "recipes" and "recipe" not in names and rest.partition(".")[0] != content["recipe"]:
            raise ValueError(f"{setting.name} changes nothing: {PARAMS_FILE} has recipe: {content['recipe']}")
        for text in setting.choices:
            changed = copy.deepcopy(content)
            _put(changed, setting.name, text)
            validate(Params, changed, f"{setting.name}={text}")


def _put(content: dict[str, Any], name: str, text: str) -> None:
    """Set the parameter `name` as `dvc exp run -S` does."""
    holder: Any = content
    *parents, last = name.split(".")
    for key in parents:
        holder = holder.get(key) if isinstance(holder, dict) else None
    if not isinstance(holder, dict) or last not in holder:
        near = difflib.get_close_matches(name, _names(content), n=1)
        raise ValueError(f"{PARAMS_FILE} has no {name}{f'; did you mean {near[0]}?' if near else ''}")
    try:
        holder[last] = YAML(typ="safe").load(text)
    except YAMLError:
        raise ValueError(f"{name}={text}: the value is not valid YAML") from None


def _names(content: Mapping[str, Any], parent: str = "") -> Iterator[str]:
    for key, value in content.items():
        yield f"{parent}{key}"
        if isinstance(value, dict):
            yield from _names(value, f"{parent}{key}.")
