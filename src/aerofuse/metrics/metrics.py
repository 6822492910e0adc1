"""The metrics of every task, the score that chooses the best checkpoint, and the error of a constant prediction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import pad

from aerofuse.common.torchvision_pairing import ensure_torchvision_imports
from aerofuse.data.labels import CLASSIFICATION_TASKS, MISSING_CLASS, REGRESSION_TASKS, TASKS

ensure_torchvision_imports()  # torchmetrics imports torchvision

from torchmetrics.functional import mean_squared_error, pearson_corrcoef, spearman_corrcoef  # noqa: E402
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score  # noqa: E402

SHARP = 0.9  # clarity of photos that are easy for a person
# The terms of the validation score, as metric: (weight, whether smaller is better).
_SCORE_TERMS = {
    "type_top1": (0.5, False),
    "airline_top1": (0.2, False),
    "clarity_mae": (0.15, True),
    "block_mae": (0.15, True),
}


def compute_metrics(outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Iterator[tuple[str, float]]:
    """Yield `(name, value)` for every task in `outputs`, over the samples that have the task's label.

    `outputs` holds logits `[N, C]` of the classification tasks and values `[N]` in 0..1 of the regression
    tasks; `targets` int64 class indices `[N]` (-1: missing) and float32 values `[N]` (NaN: missing).

    Yields `{task}_labelled`, the number of labelled samples, and where it is not 0: `type_top1`, `type_top5`
    (top-k with k = min(5, C)), `type_macro_f1` (over the classes seen or predicted), `airline_top1`, and
    `{clarity,block}_{mae,rmse,plcc,srcc}` (PLCC: Pearson's, SRCC: Spearman's correlation). A correlation is
    undefined where the predictions or the labels are constant; it is then left out, and never given as 0. Of the
    samples whose clarity is above `SHARP`, yields `sharp_labelled` and `sharp_type_top1`.

    Raises `ValueError` where a task is unknown, has not as many targets, or predicts NaN or infinity.
    """
    unknown = sorted(outputs.keys() - set(TASKS))
    if unknown:
        raise ValueError(f"no such task: {', '.join(unknown)}; there are {', '.join(TASKS)}")
    for task in TASKS:
        if task not in outputs:
            continue
        predictions, labels = _labelled(task, outputs[task], targets)
        yield f"{task}_labelled", len(labels)
        if len(labels) > 0:
            metrics = _classification if task in CLASSIFICATION_TASKS else _regression
            yield from metrics(task, predictions, labels)
    if "type" in outputs and "clarity" in targets:
        yield from _sharp(outputs["type"], targets["type"], targets["clarity"])


def validation_score(metrics: Mapping[str, float]) -> float:
    """Return the score in 0..1 that chooses the best checkpoint; more is better.

    It is 0.5 type_top1 + 0.2 airline_top1 + 0.15 (1 - clarity_mae) + 0.15 (1 - block_mae), over the terms that
    `metrics` has, with weights scaled to add up to 1. Raises `ValueError` where it has none of them.
    """
    present = {name: term for name, term in _SCORE_TERMS.items() if name in metrics}
    if not present:
        raise ValueError(
            f"no score without any of {', '.join(_SCORE_TERMS)}; found: {', '.join(sorted(metrics)) or 'none'}."
            " Does the split have labels?"
        )
    total = sum(
        weight * (1 - metrics[name] if smaller else metrics[name]) for name, (weight, smaller) in present.items()
    )
    return total / sum(weight for weight, _ in present.values())


def constant_predictor_maes(train: pd.DataFrame, test: pd.DataFrame) -> dict[str, float]:
    """Return `{task}_mae_constant` of each regression task that both label tables have labels of.

    It is the MAE on `test` of a constant prediction, the median of `train`. The median is the constant with the least
    absolute error: a model that is no better has learned nothing.
    """
    maes = {}
    for task in REGRESSION_TASKS:
        known, asked = (table[task].dropna().to_numpy(dtype=np.float64) for table in (train, test))
        if len(known) and len(asked):
            maes[f"{task}_mae_constant"] = float(np.abs(asked - np.median(known)).mean())
    return maes


def _labelled(task: str, predictions: Tensor, targets: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Predictions and labels of the samples whose label is known."""
    if task not in targets or len(targets[task]) != len(predictions):
        found = len(targets[task]) if task in targets else "no"
        raise ValueError(f"{task}: {len(predictions)} predictions, {found} targets; there must be one for each")
    if not torch.isfinite(predictions).all():
        raise ValueError(f"{task}: the model predicts NaN or infinity; its weights are damaged or diverged")
    labels = targets[task]
    known = labels != MISSING_CLASS if task in CLASSIFICATION_TASKS else ~torch.isnan(labels)
    return predictions[known], labels[known]


def _sharp(logits: Tensor, types: Tensor, clarity: Tensor) -> Iterator[tuple[str, float]]:
    known = (types != MISSING_CLASS) & (clarity > SHARP)  # which NaN is not
    if known.any():
        yield "sharp_labelled", int(known.sum())
        yield "sharp_type_top1", float((logits[known].argmax(1) == types[known]).double().mean())


def _classification(task: str, logits: Tensor, labels: Tensor) -> Iterator[tuple[str, float]]:
    best = min(5, logits.shape[1])
    if logits.shape[1] == 1:  # a table with one airline is allowed; torchmetrics wants two classes
        logits = pad(logits, (0, 1), value=-torch.inf)
    classes = logits.shape[1]
    yield f"{task}_top1", float(multiclass_accuracy(logits, labels, classes, average="micro"))
    if task == "type":
        yield "type_top5", float(multiclass_accuracy(logits, labels, classes, average="micro", top_k=best))
        yield "type_macro_f1", float(multiclass_f1_score(logits, labels, classes, average="macro"))


def _regression(task: str, values: Tensor, labels: Tensor) -> Iterator[tuple[str, float]]:
    # float64: a sum over thousands of float32 errors would not be good for 6 digits
    values, labels = values.double(), labels.double()
    yield f"{task}_mae", float((values - labels).abs().mean())
    yield f"{task}_rmse", float(mean_squared_error(values, labels, squared=False))
    if values.min() < values.max() and labels.min() < labels.max():
        for name, correlation in (("plcc", pearson_corrcoef), ("srcc", spearman_corrcoef)):
            value = float(correlation(values, labels))
            if np.isfinite(value):  # torchmetrics gives NaN where the variance is too small to divide by
                yield f"{task}_{name}", value
