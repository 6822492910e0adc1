"""What models answered on photographs, with intervals: as a table, a chart and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import altair as alt
import numpy as np
import pandas as pd
from scipy.stats import binomtest

from aerofuse.common.markdown import markdown_table
from aerofuse.metrics.statistics import Difference, Interval, Values, paired_difference
from aerofuse.plotting.chart import BLUE, GREEN, GREY, ORANGE, VERMILLION, Chart, finish, write_picture
from aerofuse.plotting.wording import METRICS, MODELS, write_interval, write_list, write_value

SHOWN = ("type_top1", "type_top5")
AIM = 0.15  # what the bundled weights must bring over random ones, of the share of right types
AIM_COMPARED = "multi-task: bundled weights over random"
# What is compared photo by photo: candidate and model, the first minus the second.
COMPARED = {
    AIM_COMPARED: (("convnext-bundled", "multi_task"), ("convnext-random", "multi_task")),
    "bundled weights: hybrid over multi-task": (("convnext-bundled", "hybrid"), ("convnext-bundled", "multi_task")),
    "single-task: package over bundled weights": (
        ("efficientnet-package", "single_task"),
        ("convnext-bundled", "single_task"),
    ),
    "package weights, 96 px: hybrid over multi-task": (
        ("efficientnet-quick", "hybrid"),
        ("efficientnet-quick", "multi_task"),
    ),
}
_WEIGHTS = {"random": (GREY, "circle"), "bundled": (BLUE, "square"), "package": (ORANGE, "triangle-up")}
_WEIGHTS["package, bundled"] = (GREEN, "diamond")
_OTHER_WEIGHTS = (VERMILLION, "cross")
_BOOTSTRAP_SEED = 0  # the same answers give the same intervals


@dataclass(frozen=True)
class PhotographResult:
    """A model of one candidate: what it was made of, its training, and which test photos it had right.

    `top1_right` and `top5_right` have a 1 or a 0 for each test photo, in the order of the file names. `busy_elsewhere`
    is the share of the processors' time that other programs took while it was trained.
    """

    candidate: str
    model: str
    backbones: str
    weights: str
    image_size: int
    views: int
    seconds: float
    device: str
    busy_elsewhere: float
    top1_right: str
    top5_right: str

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return the result that the report holds, without what follows from it."""
        return cls(**{field.name: content[field.name] for field in fields(cls)})

    @property
    def right(self) -> dict[str, Values]:
        """Return 1 or 0 for each photo, by metric."""
        texts = {"type_top1": self.top1_right, "type_top5": self.top5_right}
        return {metric: np.array(list(text), dtype=np.float64) for metric, text in texts.items()}


@dataclass(frozen=True)
class PhotographStudy:
    """The results on the same photos, how many there are in each split and of how many types."""

    photos: Mapping[str, int]
    results: tuple[PhotographResult, ...]
    confidence_level: float
    resamples: int

    def interval(self, result: PhotographResult, metric: str) -> Interval:
        """Return Wilson's interval of a metric, which has a width even where all answers are right."""
        right = result.right[metric]
        found = binomtest(int(right.sum()), len(right)).proportion_ci(self.confidence_level, method="wilson")
        return Interval(float(found.low), float(found.high))

    def differences(self) -> dict[str, Difference]:
        """Return the differences in top-1 of those in `COMPARED` that were measured, with bootstrap intervals."""
        settings: dict[str, Any] = {
            "confidence_level": self.confidence_level,
            "resamples": self.resamples,
            "seed": _BOOTSTRAP_SEED,
        }
        known = {(result.candidate, result.model): result.right["type_top1"] for result in self.results}
        return {
            name: paired_difference(known[first], known[second], **settings)
            for name, (first, second) in COMPARED.items()
            if first in known and second in known
        }

    def to_json(self) -> dict[str, Any]:
        """Return all of it, with the shares of right answers and their intervals."""
        results = [
            asdict(result)
            | {
                metric: {"share": right.mean(), **asdict(self.interval(result, metric))}
                for metric, right in result.right.items()
            }
            for result in self.results
        ]
        differences = {name: asdict(difference) for name, difference in self.differences().items()}
        return {"photos": dict(self.photos), "results": results, "differences": differences}


def photographs_page(study: PhotographStudy) -> str:
    """Write the results as Markdown: a row for each model, then the differences."""
    photos, level = study.photos, f"{100 * study.confidence_level:g} %"
    devices = write_list(list(dict.fromkeys(result.device for result in study.results)))
    described = (
        f"{photos['test']} test photos of {photos['types']} types, {photos['train']} photos to train and "
        f"{photos['validation']} to validate, on {devices}. Brackets: {level} intervals over the test photos (Wilson). "
        "Busy elsewhere: the share of the processors' time that other programs took during the training. "
        "From `reports/photographs.json`."
    )
    parts = [_results_table(study), described]
    differences = study.differences()
    if differences:
        rows = [
            [name, write_value(one.estimate, "points", signed=True), _interval(one, signed=True)]
            for name, one in differences.items()
        ]
        header = ["type top-1 compared", "difference", f"{level} interval (bootstrap)"]
        parts.append(markdown_table(header, rows, "lrr"))
    if AIM_COMPARED in differences:
        verdict = "reached" if differences[AIM_COMPARED].estimate >= AIM else "not reached"
        parts.append(f"The aim of {100 * AIM:.0f} points from the bundled weights over random ones is {verdict}.")
    return "\n\n".join(parts) + "\n"


def _results_table(study: PhotographStudy) -> str:
    rows = []
    for result in study.results:
        scores = [f"{_share(result, metric)} {_interval(study.interval(result, metric))}" for metric in SHOWN]
        made_of = [MODELS[result.model], _code(result.backbones), result.weights, f"{result.image_size} px"]
        trained = [str(result.views), f"{result.seconds:.0f}", f"{100 * result.busy_elsewhere:.0f} %"]
        rows.append([*made_of, *scores, *trained])
    names = [METRICS[metric][0] for metric in SHOWN]
    header = ["model", "backbones", "weights", "image", *names, "views of each photo", "seconds of training"]
    return markdown_table([*header, "busy elsewhere"], rows, "lllrrrrrr")


def draw_photographs(study: PhotographStudy, path: Path) -> None:
    """Write the chart as PNG: for each model the shares of right types with their intervals, by weights."""
    charts = []
    for metric in SHOWN:
        table = pd.DataFrame(
            {
                "model": f"{MODELS[result.model]}, {result.backbones.replace(', ', ' + ')}",
                "weights": result.weights,
                "value": 100 * result.right[metric].mean(),
                "low": 100 * interval.low,
                "high": 100 * interval.high,
                "written": _share(result, metric),
            }
            for result, interval in ((result, study.interval(result, metric)) for result in study.results)
        )
        charts.append(_shares_chart(metric, table))
    photos = study.photos
    title = f"{photos['test']} test photos of {photos['types']} types, by the weights at the start"
    write_picture(path, [[chart] for chart in charts], title=title, shared_legend=True)


def _shares_chart(metric: str, table: pd.DataFrame) -> Chart:
    names = list(dict.fromkeys(table["model"]))
    kinds = list(dict.fromkeys(table["weights"]))
    colours, shapes = zip(*(_WEIGHTS.get(weights, _OTHER_WEIGHTS) for weights in kinds), strict=True)
    legend = alt.Legend(orient="bottom", title=None)
    colour = alt.Color("weights:N", scale=alt.Scale(domain=kinds, range=colours), legend=legend)
    shape = alt.Shape("weights:N", scale=alt.Scale(domain=kinds, range=shapes), legend=legend)
    base = alt.Chart(table.round(2)).encode(
        y=alt.Y("model:N", sort=names, title=None, axis=alt.Axis(labelLimit=260)), color=colour
    )
    x = alt.Scale(domain=[0, 100], nice=False)
    layers = [
        base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=None, scale=x), x2="high:Q"),
        base.mark_point(filled=True, size=70, opacity=1).encode(x="value:Q", shape=shape),
        base.mark_text(dy=-13, fontSize=10).encode(x="value:Q", text="written:N"),
    ]
    title = f"{METRICS[metric][0]}, %"
    said = "; ".join(f"{row.model}, {row.weights}: {row.written}" for row in table.itertuples())
    return finish(f"photographs-{metric}", title, f"{title}: {said}.", alt.layer(*layers), height=44 * len(names))


def _share(result: PhotographResult, metric: str) -> str:
    return write_value(float(result.right[metric].mean()), "%")


def _interval(found: Interval | Difference, *, signed: bool = False) -> str:
    return write_interval(found.low, found.high, "points" if signed else "%", signed=signed)


def _code(words: str) -> str:
    return ", ".join(f"`{word}`" for word in words.split(", "))
