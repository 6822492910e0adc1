"""The report's charts as PNG, for MLflow, slides and papers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import vl_convert

from aerofuse.plotting.chart_style import VEGA_LITE, light_chart_style
from aerofuse.plotting.charts import Chart
from aerofuse.plotting.vega_bundle import vega_lite_version

_WIDTH_PX = 640
_SCALE = 2  # of a screen with fine pixels, and of paper


def write_chart_pictures(charts: Iterable[Chart], folder: Path) -> None:
    """Write `<name of the chart>.png` of each, as the page shows it in a light room, under its title."""
    folder.mkdir(parents=True, exist_ok=True)
    style, version = light_chart_style(), vega_lite_version(VEGA_LITE)
    for chart in charts:
        title = {"text": chart.title, "subtitle": chart.legend}
        spec = chart.spec | {"title": title, "width": max(_WIDTH_PX, chart.least_width_px)}
        picture = vl_convert.vegalite_to_png(spec, vl_version=version, config=style, scale=_SCALE)
        (folder / f"{chart.name}.png").write_bytes(picture)
