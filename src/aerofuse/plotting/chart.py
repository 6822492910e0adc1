"""A chart: one description as Vega-Lite, which the report's page draws and which becomes a PNG file."""

from __future__ import annotations

import base64
import io
import json
from collections import ChainMap
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import altair as alt
from PIL import Image

from aerofuse.plotting.wording import MODELS

AnyChart = alt.Chart | alt.LayerChart | alt.FacetChart

_STYLE: dict[str, Any] = json.loads(Path(__file__).with_name("style.json").read_text(encoding="utf-8"))
_SCALE = 2  # pixels of a picture per pixel of a chart, for screens with fine pixels and for paper
_ROW_WIDTH_PX, _GAP_PX = 640, 40
_MAX_BYTES = 150_000

# Fixed, so that a model has its colour and shape also in a chart without the others.
MODEL_COLOUR = alt.Color("model:N", scale=alt.Scale(domain=list(MODELS.values())), legend=None)
MODEL_SHAPE = alt.Shape(
    "model:N", scale=alt.Scale(domain=list(MODELS.values()), range=["triangle-up", "square", "circle"]), legend=None
)
MODEL_LEGEND = ", ".join(f"{mark} {name}" for mark, name in zip("▲■●", MODELS.values(), strict=True))
# The second palette of the page, for everything except models.
SECOND_PALETTE = "ordinal"
# Styles for secondary text and lines, and for text on dark and on light cells.
QUIET, ON_DEEP, ON_PALE, CONTRAST = "quiet", "on-deep", "on-pale", "contrast"
# Okabe and Ito, "Color universal design" (2008): for charts that only become PNG files.
BLUE, ORANGE, GREEN, VERMILLION = "#0072b2", "#e69f00", "#009e73", "#d55e00"
INK, GREY, PALE = "#222222", "#767676", "#d8dee4"


@dataclass(frozen=True)
class Chart:
    """A chart as Vega-Lite, with its title and a description in words for readers who cannot see it.

    The page draws it as wide as there is room, and at least `least_width_px` wide. `on_canvas` is for charts with many
    marks. `subtitle` stands on the PNG only, where the page says the same elsewhere.
    """

    name: str
    title: str
    description: str
    spec: dict[str, Any] = field(repr=False)
    least_width_px: int = 0
    on_canvas: bool = False
    subtitle: str = ""


def finish(
    name: str,
    title: str,
    description: str,
    chart: AnyChart,
    *,
    height: int,
    least_width_px: int = 0,
    on_canvas: bool = False,
    subtitle: str = "",
) -> Chart:
    """Return the chart without altair's own look; the same chart gives the same specification."""
    spec: dict[str, Any] = chart.properties(width="container", height=height).to_dict()
    spec.pop("config")
    spec["autosize"] = {"type": "fit-x", "contains": "padding"}
    return Chart(name, title, description, spec, least_width_px, on_canvas, subtitle)


def chart_style() -> dict[str, Any]:
    """Return Vega-Lite's configuration, in which a colour is the name of one of the page's, such as `--hybrid`."""
    style: dict[str, Any] = _STYLE["config"]
    return style


def page_colours(scheme: str) -> dict[str, str]:
    """Return the page's colours by name for the scheme `light` or `dark`."""
    return dict(_STYLE[scheme])


def picture_style() -> dict[str, Any]:
    """Return the configuration for PNG files: the light colours, and a font that is there on every machine."""
    # vl-convert brings this font along.
    text = json.dumps(chart_style() | {"font": "Liberation Sans"})
    for name, colour in page_colours("light").items():
        text = text.replace(f'"{name}"', f'"{colour}"')
    style: dict[str, Any] = json.loads(text)
    return style


def write_picture(
    path: Path,
    rows_of_charts: Sequence[Sequence[Chart]],
    *,
    title: str = "",
    width_px: int = _ROW_WIDTH_PX,
    scale: int = _SCALE,
    shared_legend: bool = False,
) -> None:
    """Write rows of charts, each under its title, as one PNG of at most 150 kB; the same charts give the same bytes.

    The charts of the longest row share `width_px`, without the labels of their axes; all are as wide as those, or as
    their `least_width_px`. `scale` is the PNG's pixels per pixel. With `shared_legend` all have the same colours.
    """
    import vl_convert

    longest = max(map(len, rows_of_charts))
    width = (width_px - _GAP_PX * (longest - 1)) // longest
    resolve = {"scale": dict.fromkeys(("color", "shape"), "shared" if shared_legend else "independent")}
    spec = {
        "title": {"text": title, "fontSize": 16, "fontWeight": "bold"} if title else None,
        "vconcat": [
            {"hconcat": [_panel(chart, width) for chart in row], "spacing": _GAP_PX, "resolve": resolve}
            for row in rows_of_charts
        ],
        "spacing": 24,
        "datasets": dict(ChainMap(*(chart.spec.get("datasets", {}) for row in rows_of_charts for chart in row))),
        "resolve": resolve,
        "padding": 10,
    }
    png = vl_convert.vegalite_to_png(spec, vl_version=vega_lite_version(), config=picture_style(), scale=scale)
    save_png(Image.open(io.BytesIO(png)), path)


def data_uri(kind: str, content: bytes) -> str:
    """Return a picture in a file of the kind `png` or `jpeg` as text, to stand inside a page."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def in_rows(charts: Sequence[Chart], columns: int) -> list[Sequence[Chart]]:
    """Return the charts in rows of so many."""
    return [charts[number : number + columns] for number in range(0, len(charts), columns)]


def _panel(chart: Chart, width_px: int) -> dict[str, Any]:
    spec = {key: value for key, value in chart.spec.items() if key not in ("$schema", "datasets", "autosize")}
    title = {"text": chart.title, "subtitle": chart.subtitle} if chart.title else None
    return spec | {"title": title, "width": max(width_px, chart.least_width_px)}


def save_png(image: Image.Image, path: Path, max_bytes: int = _MAX_BYTES) -> None:
    """Write a PNG of at most `max_bytes`; the same image gives the same bytes.

    A large one loses colours first and then size. Raises `ValueError` where even a few pixels would be too large.
    """
    image = image.convert("RGB")
    path.parent.mkdir(parents=True, exist_ok=True)
    colours: tuple[int | None, ...] = (None, 256, 64)
    while min(image.size) >= 16:
        for count in colours:
            candidate = image.quantize(count, dither=Image.Dither.NONE) if count else image
            buffer = io.BytesIO()
            candidate.save(buffer, format="PNG", optimize=True)
            size = buffer.tell()
            if size <= max_bytes:
                path.write_bytes(buffer.getvalue())
                return
        scale = min(0.9, 0.95 * (max_bytes / size) ** 0.5)
        image = image.resize((int(scale * image.width), int(scale * image.height)), Image.Resampling.LANCZOS)
        colours = colours[-1:]  # the size was chosen for as many
    raise ValueError(f"{path} cannot be a PNG of {max_bytes} bytes; allow more")


@cache
def vega_lite_version() -> str:
    """Return the newest Vega-Lite 6, such as `6.4`; altair writes for that major version."""
    import vl_convert

    versions = [tuple(map(int, version.split("."))) for version in vl_convert.get_vegalite_versions()]
    return ".".join(map(str, max(version for version in versions if version[0] == 6)))


@cache
def vega_bundle(script: str) -> str:
    """Return Vega, the newest Vega-Lite 6, vega-embed and then `script`, for inside a script tag.

    `script` may use `vega`, `vegaLite` and `vegaEmbed`; the page loads nothing from outside.
    """
    import vl_convert

    bundle = vl_convert.javascript_bundle(script, vl_version=vega_lite_version())
    return str(bundle).replace("</script", "<\\/script")
