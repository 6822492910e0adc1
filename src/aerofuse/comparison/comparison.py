"""The comparison of the three models: their metrics, the intervals of their differences, and the gates."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from aerofuse.comparison.gates import (
    ACCURACY_GATES,
    HYBRID_GATES,
    GateResult,
    check_gates,
    measure_accuracy,
    measure_gain,
    measure_latency,
    measure_memory,
)
from aerofuse.comparison.times import EvaluationTimes, TrainingTimes
from aerofuse.metrics.predictions import per_image_values
from aerofuse.metrics.statistics import Difference, Interval, McNemar, Values, mcnemar, mean_interval, paired_difference

# The stages that train each model. The models stand in the order in which they are shown.
TRAINING_STAGES = {
    "single_task": ("train_single_task",),
    "multi_task": ("train_multi_task",),
    "hybrid": ("train_stage_a", "train_stage_b", "train_stage_c"),
}
PAIRS = (("hybrid", "multi_task"), ("hybrid", "single_task"), ("multi_task", "single_task"))
_BOOTSTRAP_SEED = 0  # the same predictions give the same intervals


@dataclass(frozen=True)
class ModelResults:
    """What is known of one model; `training` has one entry per stage that trained it."""

    metrics: Mapping[str, float]
    predictions: pd.DataFrame
    times: EvaluationTimes
    training: tuple[TrainingTimes, ...]


@dataclass(frozen=True)
class Settings:
    """How the models are compared, and in which setting the hybrid's last phase was trained."""

    confidence_level: float
    resamples: int
    recipe: str
    batch_size: int

    @property
    def bootstrap(self) -> dict[str, Any]:
        """Return the settings of every bootstrap."""
        return {"confidence_level": self.confidence_level, "resamples": self.resamples, "seed": _BOOTSTRAP_SEED}


@dataclass(frozen=True)
class ModelRow:
    """One model: its metrics, the intervals of those that are means over images, its size and its times."""

    model: str
    metrics: Mapping[str, float]
    intervals: Mapping[str, Interval]
    times: EvaluationTimes
    training: TrainingTimes


@dataclass(frozen=True)
class ModelDifference:
    """`model_a` minus `model_b` in one metric, over the `images` that have its label."""

    model_a: str
    model_b: str
    metric: str
    images: int
    difference: Difference
    mcnemar: McNemar | None


@dataclass(frozen=True)
class Comparison:
    """The comparison of the models on `test_images` images.

    `phase_speed_ratio`: images per second that the hybrid trains on in its phase A, by those in its phase C.
    """

    test_images: int
    settings: Settings
    rows: tuple[ModelRow, ...]
    differences: tuple[ModelDifference, ...]
    gates: tuple[GateResult, ...]
    phase_speed_ratio: float

    @property
    def failed_gates(self) -> list[GateResult]:
        """Return the gates that the hybrid fails; they are not asked of the baselines."""
        return [gate for gate in self.gates if gate.model == "hybrid" and gate.status == "fail"]

    def difference(self, model_a: str, model_b: str, metric: str) -> ModelDifference | None:
        """Return one of `differences`, None where it could not be measured."""
        return _find(self.differences, model_a, model_b, metric)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return asdict(self)

    def flat_metrics(self) -> dict[str, dict[str, float]]:
        """Return the few numbers for `metrics/compare.json`: nothing timed, nor gates on it: they repeat."""
        gain = self.difference("hybrid", "multi_task", "type_top1")
        checked = [gate for gate in self.gates if gate.model == "hybrid" and gate.repeatable]
        metrics: dict[str, float] = {}
        if gain is not None and gain.mcnemar is not None:
            metrics["gain_type_top1"] = gain.difference.estimate
            metrics["gain_low"] = gain.difference.low
            metrics["gain_high"] = gain.difference.high
            metrics["mcnemar_p"] = gain.mcnemar.p_value
        metrics["gates_passed"] = sum(gate.status == "pass" for gate in checked)
        metrics["gates_failed"] = sum(gate.status == "fail" for gate in checked)
        return {"compare": metrics}


def _find(differences: Iterable[ModelDifference], model_a: str, model_b: str, metric: str) -> ModelDifference | None:
    wanted = (model_a, model_b, metric)
    return next((d for d in differences if (d.model_a, d.model_b, d.metric) == wanted), None)


def compare_models(results: Mapping[str, ModelResults], settings: Settings) -> Comparison:
    """Compare single_task, multi_task and hybrid on the same test images.

    Raises `ValueError` where a model is missing or has predictions of other images.
    """
    if set(results) != set(TRAINING_STAGES):
        raise ValueError(f"results of {', '.join(results)}; there must be those of {', '.join(TRAINING_STAGES)}")
    _check_same_images(results)
    values = {model: per_image_values(result.predictions) for model, result in results.items()}
    rows = tuple(_row(model, results[model], values[model], settings) for model in TRAINING_STAGES)
    differences = tuple(
        _difference(model_a, model_b, metric, values[model_a][metric], values[model_b][metric], settings)
        for model_a, model_b in PAIRS
        for metric in values[model_a]
        if metric in values[model_b] and not np.isnan(values[model_b][metric]).all()
    )
    phase_a, *_, phase_c = results["hybrid"].training
    return Comparison(
        test_images=len(results["hybrid"].predictions),
        settings=settings,
        rows=rows,
        differences=differences,
        gates=tuple(_gates(results, differences, settings)),
        phase_speed_ratio=phase_a.images_per_second / phase_c.images_per_second,
    )


def _check_same_images(results: Mapping[str, ModelResults]) -> None:
    for (model_a, a), (model_b, b) in itertools.pairwise(results.items()):
        if list(a.predictions["filename"]) != list(b.predictions["filename"]):
            raise ValueError(
                f"{model_a} and {model_b} were evaluated on different test images; `dvc repro compare` "
                "evaluates again what is out of date"
            )


def _row(model: str, result: ModelResults, values: Mapping[str, Values], settings: Settings) -> ModelRow:
    intervals = {
        metric: mean_interval(per_image, **settings.bootstrap)
        for metric, per_image in values.items()
        if not np.isnan(per_image).all()
    }
    return ModelRow(model, dict(result.metrics), intervals, result.times, TrainingTimes.total(result.training))


def _difference(
    model_a: str, model_b: str, metric: str, values_a: Values, values_b: Values, settings: Settings
) -> ModelDifference:
    return ModelDifference(
        model_a=model_a,
        model_b=model_b,
        metric=metric,
        images=int(np.sum(~np.isnan(values_a))),
        difference=paired_difference(values_a, values_b, **settings.bootstrap),
        mcnemar=mcnemar(values_a, values_b) if metric.endswith("_top1") else None,
    )


def _gates(
    results: Mapping[str, ModelResults], differences: tuple[ModelDifference, ...], settings: Settings
) -> list[GateResult]:
    """Return all gates of the hybrid; those of accuracy also for the multi-task model, to compare."""
    hybrid, multi_task = results["hybrid"], results["multi_task"]
    gain = _find(differences, "hybrid", "multi_task", "type_top1")
    measurements = measure_accuracy(hybrid.metrics, hybrid.predictions) | {
        "type_top1_gain": measure_gain(
            None if gain is None else gain.difference, None if gain is None else gain.mcnemar, settings.confidence_level
        ),
        "latency_ms": measure_latency(hybrid.times),
        "peak_memory_bytes": measure_memory(hybrid.training[-1], settings.recipe, settings.batch_size),
    }
    return check_gates("hybrid", HYBRID_GATES, measurements) + check_gates(
        "multi_task", ACCURACY_GATES, measure_accuracy(multi_task.metrics, multi_task.predictions)
    )
