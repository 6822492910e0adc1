"""How pages are made from templates."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from aerofuse.plotting.chart import page_colours


def open_templates(folder: Path) -> Environment:
    """Return the templates in a folder. They escape what they are given, and refuse a name that they are not given."""
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def colour_variables() -> str:
    """Return the colours of a page as CSS variables, light and dark."""
    light, dark = (
        " ".join(f"{name}: {colour};" for name, colour in page_colours(scheme).items()) for scheme in ("light", "dark")
    )
    return f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
