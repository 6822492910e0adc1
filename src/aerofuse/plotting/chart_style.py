"""How charts look: one description for those that the page draws, and for those that become pictures."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).resolve().parents[1] / "report" / "templates"
VEGA_LITE = 6  # the major version for which altair writes


def read_chart_style() -> dict[str, Any]:
    """Vega-Lite's configuration, in which a colour is the name of one of the page's, such as `--hybrid`."""
    style: dict[str, Any] = json.loads((TEMPLATES / "chart_style.json").read_text(encoding="utf-8"))
    return style


def light_chart_style() -> dict[str, Any]:
    """The same with the colours of the page in a light room."""
    css = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    light = css[: css.index("@media")]
    colours = dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{6});", light))
    style: dict[str, Any] = _with_colours(read_chart_style(), colours)
    return style


def _with_colours(part: Any, colours: dict[str, str]) -> Any:
    match part:
        case dict():
            return {name: _with_colours(value, colours) for name, value in part.items()}
        case list():
            return [_with_colours(value, colours) for value in part]
        case str() if part.startswith("--"):
            return colours[part]
    return part
