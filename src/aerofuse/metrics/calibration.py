"""Calibration: a temperature per classification head, and the distance of confidences from the share that is right."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from aerofuse.common.torchvision_pairing import ensure_torchvision_imports
from aerofuse.data.labels import CLASSIFICATION_TASKS, MISSING_CLASS
from aerofuse.metrics.reliability import BINS
from aerofuse.models.heads import scale_logits

ensure_torchvision_imports()  # torchmetrics imports torchvision

from torchmetrics.functional.classification import multiclass_calibration_error  # noqa: E402

# Where every answer is right, a lower temperature is always likelier; where answers are no better than chance, a
# higher one. The search stops at these bounds.
LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.1, 10.0
_UNCALIBRATED = 1.0
_DIGITS = 6


def fit_temperatures(outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the temperature of each classification task in `outputs` that makes the labels likeliest.

    `outputs` and `targets` are as for `compute_metrics`, of the validation split. A temperature is between
    `LEAST_TEMPERATURE` and `MOST_TEMPERATURE`, and 1 where no other is better: without labels, for a single class,
    for equal logits. The method is temperature scaling (Guo et al., 2017, arXiv 1706.04599).

    Raises `ValueError` where logits are NaN or infinite.
    """
    return {task: _fit(task, outputs[task], targets[task]) for task in CLASSIFICATION_TASKS if task in outputs}


def _fit(task: str, logits: Tensor, labels: Tensor) -> float:
    known = labels != MISSING_CLASS
    logits, labels = logits[known].double(), labels[known]
    if not torch.isfinite(logits).all():
        raise ValueError(f"{task}: the model predicts NaN or infinity; its weights are damaged or diverged")
    if len(labels) == 0:
        return _UNCALIBRATED

    def loss(log_temperature: float) -> float:
        return float(cross_entropy(logits / math.exp(log_temperature), labels))

    # The loss is convex in the inverse temperature, so it has one minimum in the logarithm too.
    bounds = math.log(LEAST_TEMPERATURE), math.log(MOST_TEMPERATURE)
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-7}).x
    # Among equally good temperatures the first wins.
    best = min((math.log(_UNCALIBRATED), float(found), *bounds), key=loss)
    return round(math.exp(best), _DIGITS)


def calibration_metrics(
    outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], temperatures: Mapping[str, float]
) -> Iterator[tuple[str, float]]:
    """Yield `{task}_ece` and `{task}_ece_uncalibrated` of each classification task that has labels.

    The expected calibration error (ECE), in 0..1, is the mean distance between the confidence and the share of right
    answers, over `BINS` bins of confidence, weighted by their images. `outputs` are those of the model, not scaled.
    """
    scaled = scale_logits(outputs, temperatures)
    for task in CLASSIFICATION_TASKS:
        if task in outputs and bool((targets[task] != MISSING_CLASS).any()):
            yield f"{task}_ece", _calibration_error(scaled[task], targets[task])
            yield f"{task}_ece_uncalibrated", _calibration_error(outputs[task].double(), targets[task])


def _calibration_error(logits: Tensor, labels: Tensor) -> float:
    known = labels != MISSING_CLASS
    probabilities = logits[known].softmax(dim=1)
    if probabilities.shape[1] == 1:  # a table with one airline is allowed; torchmetrics wants two classes
        probabilities = pad(probabilities, (0, 1))
    error = multiclass_calibration_error(probabilities, labels[known], probabilities.shape[1], n_bins=BINS, norm="l1")
    return float(error)
