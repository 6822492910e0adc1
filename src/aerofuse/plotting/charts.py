"""What all interactive charts of the report share. Colours and fonts come from the page, light or dark."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import altair as alt
import pandas as pd

from aerofuse.plotting.wording import MODELS

AnyChart = alt.Chart | alt.LayerChart | alt.FacetChart

# Fixed, so that a model has its colour and shape also in a chart without the others.
MODEL_COLOUR = alt.Color("model:N", scale=alt.Scale(domain=list(MODELS.values())), legend=None)
MODEL_SHAPE = alt.Shape(
    "model:N", scale=alt.Scale(domain=list(MODELS.values()), range=["triangle-up", "square", "circle"]), legend=None
)
MODEL_LEGEND = ", ".join(f"{mark} {name}" for mark, name in zip("▲■●", MODELS.values(), strict=True))
# The second palette of the page, for what are no models.
SECOND_PALETTE = "ordinal"
# Texts and lines that stand back, and text on dark and on light cells: styles of the page's script.
QUIET, ON_DEEP, ON_PALE, CONTRAST = "quiet", "on-deep", "on-pale", "contrast"


@dataclass(frozen=True)
class Chart:
    """A chart as Vega-Lite, with what stands above it and what it shows in words, for those who do not see it.

    It is as wide as the page lets it be, and at least `least_width_px`. Many marks are drawn on a canvas. `legend` says
    what the marks are where the page says it once for all charts.
    """

    name: str
    title: str
    description: str
    spec: dict[str, Any] = field(repr=False)
    least_width_px: int = 0
    on_canvas: bool = False
    legend: str = ""


def finish(
    name: str,
    title: str,
    description: str,
    chart: AnyChart,
    *,
    height: int,
    least_width_px: int = 0,
    on_canvas: bool = False,
    legend: str = "",
) -> Chart:
    """The chart at the page's width; the same chart gives the same specification."""
    spec: dict[str, Any] = chart.properties(width="container", height=height).to_dict()
    spec.pop("config")  # altair's own looks
    spec["autosize"] = {"type": "fit-x", "contains": "padding"}
    return Chart(name, title, description, spec, least_width_px, on_canvas, legend)


def rows(table: pd.DataFrame, digits: int = 4) -> pd.DataFrame:
    """A table as it goes into the page: no more digits than are read."""
    return table.round(digits)
