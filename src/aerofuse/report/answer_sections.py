"""The sections of the report on what the models answer, each with a sentence where there is nothing to show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from aerofuse.common.markdown import Table
from aerofuse.data.labels import CLASSIFICATION_TASKS, REGRESSION_TASKS
from aerofuse.plotting.charts import Chart
from aerofuse.plotting.wording import METRICS, MODELS, write_list, write_value
from aerofuse.report.answer_charts import confused_pairs, confusion_chart, regression_chart, reliability_chart
from aerofuse.report.calibration import (
    AFTER,
    BEFORE,
    NEVER,
    calibrated_tasks,
    expected_calibration_error,
    mean_over_images,
    reliability,
)
from aerofuse.report.sources import PageSources, without_head, without_label

# The model that a section shows; the others are folded away.
_SHOWN = "hybrid"


@dataclass(frozen=True)
class ModelPart:
    """What a section has of one model."""

    model: str
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
    """The confusion matrices and the most confused pairs."""
    parts = []
    for model, predictions in sources.predictions.items():
        if predictions["type"].notna().any():
            charts = [confusion_chart(predictions, model)]
            pairs = confused_pairs(predictions)
            notes = [] if pairs.rows else ["It takes no type for another."]
            parts.append(ModelPart(model, MODELS[model], charts, pairs if pairs.rows else None, notes))
    return _divided(parts, [] if parts else [without_label("type")])


def calibration_section(sources: PageSources) -> AnswerSection:
    """Reliability diagrams, and the expected calibration errors of all models in one table."""
    parts, lines, uncalibrated = [], [], []
    for model, predictions in sources.predictions.items():
        charts = []
        for task in calibrated_tasks(predictions):
            charts.append(reliability_chart(predictions, task, model))
            lines.append(_calibration_row(sources, model, task))
            if f"{task}_confidence_uncalibrated" not in predictions:
                uncalibrated.append(f"{MODELS[model]} ({task})")
        if charts:
            parts.append(ModelPart(model, MODELS[model], charts))
    notes = _missing(sources, CLASSIFICATION_TASKS)
    if uncalibrated:
        notes.append(
            f"Not calibrated: {write_list(uncalibrated)}. There the confidences are the softmax of the logits as they "
            "are."
        )
    header = ["model", "head", "images", "right", "mean confidence", "ECE", "ECE before calibration"]
    return _divided(parts, notes, Table(header, lines, "llrrrrr") if lines else None)


def _calibration_row(sources: PageSources, model: str, task: str) -> list[str]:
    predictions = sources.predictions[model]
    metrics = next(row.metrics for row in sources.comparison.rows if row.model == model)
    bins = reliability(predictions, task)
    kinds = {kind: expected_calibration_error(part) for kind, part in bins.groupby("kind")}
    # Where evaluation has measured them, its numbers are the ones that are reported everywhere.
    shown = AFTER if AFTER in kinds else NEVER
    after = metrics.get(f"{task}_ece", kinds[shown])
    before = metrics.get(f"{task}_ece_uncalibrated", kinds[BEFORE]) if BEFORE in kinds else None
    last = bins[bins["kind"] == shown]
    means = (mean_over_images(last, column) for column in ("accuracy", "confidence"))
    return [
        MODELS[model],
        task,
        str(last["images"].sum()),
        *(write_value(value, "%") for value in (*means, after, before)),
    ]


def regression_section(sources: PageSources) -> AnswerSection:
    """Clarity and block, predicted against true."""
    parts = []
    for model, predictions in sources.predictions.items():
        tasks = [task for task in REGRESSION_TASKS if task in predictions and predictions[task].notna().any()]
        if tasks:
            metrics = next(row.metrics for row in sources.comparison.rows if row.model == model)
            charts = [regression_chart(predictions, task, model) for task in tasks]
            parts.append(ModelPart(model, MODELS[model], charts, notes=[_errors(metrics, task) for task in tasks]))
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
    """What cannot be shown of some tasks: without labels nothing, without a head not that model."""
    notes = []
    headless: dict[tuple[str, ...], list[str]] = {}
    for task in tasks:
        having = sources.models_with(task)
        labelled = any(sources.predictions[model][task].notna().any() for model in having)
        if not labelled:
            notes.append(without_label(task))
        elif len(having) < len(MODELS):
            headless.setdefault(tuple(model for model in MODELS if model not in having), []).append(task)
    return notes + [without_head(models, tasks) for models, tasks in headless.items()]


def _divided(parts: list[ModelPart], notes: list[str], table: Table | None = None) -> AnswerSection:
    shown = next((part for part in parts if part.model == _SHOWN), None)
    return AnswerSection(shown, [part for part in parts if part is not shown], notes, table)
