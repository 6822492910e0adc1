"""The sections of the report, each with a sentence where there is nothing to show."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML

from aerofuse.common.markdown import Table
from aerofuse.data.labels import CLASSIFICATION_TASKS, REGRESSION_TASKS, TASKS
from aerofuse.metrics.confusion import confused_pairs, type_names
from aerofuse.metrics.reliability import AFTER, calibrated_tasks, mean_over_images, reliability_bins
from aerofuse.plotting.answers import confusion_chart, regression_chart, reliability_chart
from aerofuse.plotting.chart import Chart, data_uri
from aerofuse.plotting.data import class_charts, label_charts, split_table
from aerofuse.plotting.models import cost_charts
from aerofuse.plotting.wording import (
    METRICS,
    MODELS,
    NONE,
    STAGES,
    write_bytes,
    write_duration,
    write_list,
    write_value,
)
from aerofuse.report.export_page import export_table
from aerofuse.report.sources import PageSection, PageSources, Picture

_FILES = {"onnx": "The ONNX file", "torch": "The torch program"}


@dataclass(frozen=True)
class ModelPart:
    """What a section has of one model."""

    name: str
    charts: list[Chart]
    table: Table | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class AnswerSection:
    """The hybrid's part, those of the baselines, and what is to be said of what is missing."""

    shown: ModelPart | None
    folded: list[ModelPart]
    notes: list[str]
    table: Table | None = None


def confusion_section(sources: PageSources) -> AnswerSection:
    """Return the confusion matrices and the most confused pairs."""
    parts = []
    for model, predictions in sources.predictions.items():
        if predictions["type"].notna().any():
            charts = [confusion_chart(predictions, type_names(predictions), model)]
            pairs = confused_pairs(predictions)
            notes = [] if pairs.rows else ["It takes no type for another."]
            parts.append(ModelPart(MODELS[model], charts, pairs if pairs.rows else None, notes))
    return _divided(parts, [] if parts else ["No test image has a label of type."])


def calibration_section(sources: PageSources) -> AnswerSection:
    """Return reliability diagrams, and the expected calibration errors of all models in one table."""
    parts, lines = [], []
    for model, predictions in sources.predictions.items():
        metrics = sources.metrics_of(model)
        charts = []
        for task in calibrated_tasks(predictions):
            charts.append(reliability_chart(predictions, task, model, metrics))
            bins = reliability_bins(predictions, task)
            bins = bins[bins["kind"] == AFTER]
            shares = (mean_over_images(bins, column) for column in ("accuracy", "confidence"))
            errors = (metrics.get(f"{task}_ece{suffix}") for suffix in ("", "_uncalibrated"))
            values = [write_value(value, "%") for value in (*shares, *errors)]
            lines.append([MODELS[model], task, str(bins["images"].sum()), *values])
        if charts:
            parts.append(ModelPart(MODELS[model], charts))
    header = ["model", "head", "images", "right", "mean confidence", "ECE", "ECE before calibration"]
    table = Table(header, lines, "llrrrrr") if lines else None
    return _divided(parts, _missing(sources, CLASSIFICATION_TASKS), table)


def regression_section(sources: PageSources) -> AnswerSection:
    """Return clarity and block, predicted against true."""
    parts = []
    for model, predictions in sources.predictions.items():
        tasks = [task for task in REGRESSION_TASKS if task in predictions and predictions[task].notna().any()]
        if tasks:
            metrics = sources.metrics_of(model)
            charts = [regression_chart(predictions, task, model, metrics) for task in tasks]
            parts.append(ModelPart(MODELS[model], charts, notes=[_errors(metrics, task) for task in tasks]))
    return _divided(parts, _missing(sources, REGRESSION_TASKS))


def _errors(metrics: Mapping[str, float], task: str) -> str:
    known = [
        f"{METRICS[name][0].removeprefix(f'{task} ')} {write_value(metrics[name], METRICS[name][1])}"
        for name in (f"{task}_mae", f"{task}_rmse", f"{task}_plcc", f"{task}_srcc")
        if name in metrics
    ]
    constant = metrics.get(f"{task}_mae_constant")
    beside = "" if constant is None else f"; a constant would have an MAE of {write_value(constant, '')}"
    undefined = "" if f"{task}_plcc" in metrics else "; the correlations are undefined, for all predictions are alike"
    return f"{task.capitalize()}: {', '.join(known)}{beside}{undefined}."


def _missing(sources: PageSources, tasks: tuple[str, ...]) -> list[str]:
    """Return what cannot be shown of some tasks: without labels nothing, without a head not that model."""
    notes = []
    headless: dict[tuple[str, ...], list[str]] = {}
    for task in tasks:
        having = sources.models_with(task)
        labelled = any(sources.predictions[model][task].notna().any() for model in having)
        if not labelled:
            notes.append(f"No test image has a label of {task}.")
        elif len(having) < len(MODELS):
            headless.setdefault(tuple(model for model in MODELS if model not in having), []).append(task)
    for models, unanswered in headless.items():
        names = f"{write_list([MODELS[model] for model in models])} model{'s have' if len(models) > 1 else ' has'}"
        notes.append(f"The {names} no head for {write_list(unanswered)}.")
    return notes


def _divided(parts: list[ModelPart], notes: list[str], table: Table | None = None) -> AnswerSection:
    shown = next((part for part in parts if part.name == MODELS["hybrid"]), None)
    return AnswerSection(shown, [part for part in parts if part is not shown], notes, table)


def cost_section(sources: PageSources) -> PageSection:
    """Return memory and time."""
    lines = []
    for stage, times in sources.training.items():
        trained = [write_duration(times.seconds), str(times.epochs), str(times.views), f"{times.images_per_second:.0f}"]
        held = [NONE] * 4
        if (memory := sources.memory[stage]) is not None:
            peak = NONE if memory.peak_bytes is None else write_bytes(memory.peak_bytes)
            held = [str(memory.batch_size), write_bytes(memory.predicted_peak_bytes), peak, memory.measured]
        lines.append([STAGES[stage], *trained, *held])
    charts = cost_charts(sources.training, sources.memory, sources.comparison)
    header = ["stage", "time", "epochs", "views", "images / s", "batch", "peak, predicted", "peak", "how measured"]
    return PageSection(Table(header, lines, "lrrrrrrrl"), _remarks_on_memory(sources), charts)


def _remarks_on_memory(sources: PageSources) -> list[str]:
    notes = []
    devices = list(dict.fromkeys(times.device for times in sources.training.values()))
    if all(times.peak_memory_bytes is None for times in sources.training.values()):
        notes.append(
            f"Trained on {write_list(devices)}, without a GPU: there is no memory of a GPU to measure. What is shown "
            "is what a training step holds, counted."
        )
    without = [STAGES[stage] for stage, record in sources.memory.items() if record is None]
    if without:
        notes.append(f"No memory was recorded for {write_list(without)}.")
    return notes


def export_section(export: Mapping[str, Any]) -> PageSection:
    """Return the exported model, as `aerofuse.inference.export_check` found it."""
    notes = [f"Fastest for a batch of {batch}: {way}." for batch, way in export["fastest_by_latency"].items()]
    notes += [f"{way} does not run here: {reason}" for way, reason in export["failed"].items()]
    notes += [
        f"{_FILES[name]} names the same type and airline as the model in torch on "
        f"{write_value(found['same_top1'], '%')} of {found['images']} test images; the largest difference of any "
        f"answer is {found['max_difference']:.1e}."
        for name, found in export["parity"].items()
    ]
    return PageSection(export_table(export), notes)


def data_section(sources: PageSources) -> PageSection:
    """Return the data report, shortened."""
    data = sources.data
    photos = sum(split["photos"] for split in data["splits"].values())
    notes = [f"{photos} photos were used, {len(data['dropped'])} were left out."]
    if data["dropped"]:
        reasons = Counter(reason.split(" (")[0] for _, reason in data["dropped"])
        notes.append("Left out: " + ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common(8)) + ".")
    if data["near_duplicates"] is not None:
        notes.append(f"{data['near_duplicates']} pictures are there more than once.")
    for what in ("duplicates", "airframes"):
        if divided := data[f"divided_{what}"]:
            name = {"duplicates": "pictures"}.get(what, what)
            outcome = "their photos were moved to one" if data["moved"] else "what is measured on them is too good"
            notes.append(f"{len(divided)} {name} are on two sides of the split that the data came with; {outcome}.")
    notes.append(
        f"{data['shared_airframes']} airframes are on more than one photo. Unless a split came with the data, each "
        "stays on one side of it."
    )
    if data["left_out_types"]:
        count = sum(data["left_out_types"].values())
        notes.append(f"{len(data['left_out_types'])} types with {count} photos were not chosen.")
    if data["merged_types"]:
        notes.append(f"Merged into one class, for they have too few airframes: {', '.join(data['merged_types'])}.")
    for task in TASKS:
        if not any(split["labelled"][task] for split in data["splits"].values()):
            notes.append(f"No photo has a label of {task}: that head learned nothing and nothing of it is measured.")
    sheet = None
    if sources.contact_sheet.is_file():
        alt = "Photos of the test split, evenly over the types, each with its type, airline, clarity and block"
        uri = data_uri("png", sources.contact_sheet.read_bytes())
        sheet = Picture(uri, alt, "Photos of the test split with their labels")
    return PageSection(split_table(data), notes, class_charts(data) + label_charts(data), sheet)


def devices_table(sources: PageSources) -> Table:
    """Return what each stage ran on, and how its training went."""
    lines = [
        [
            STAGES[stage],
            times.device,
            f"{times.busy_elsewhere:.0%}",
            NONE if (memory := sources.memory[stage]) is None else memory.policy,
            str(times.resumed),
        ]
        for stage, times in sources.training.items()
    ]
    lines += [
        [
            f"latency, {MODELS[row.model]}",
            f"{row.times.device}, {row.times.image_size} px",
            f"{row.times.busy_elsewhere:.0%}",
            NONE,
            NONE,
        ]
        for row in sources.comparison.rows
    ]
    header = ["stage", "device", "processors' time of other programs", "saved for the backward pass", "times resumed"]
    return Table(header, lines, "llrlr")


def params_text(params: Mapping[str, Any]) -> str:
    """Return the parameters as YAML."""
    buffer = io.StringIO()
    yaml = YAML(typ="safe")
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(dict(params), buffer)
    return buffer.getvalue()
