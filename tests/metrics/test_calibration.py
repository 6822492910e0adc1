from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from aerofuse.metrics.calibration import LEAST_TEMPERATURE, MOST_TEMPERATURE, calibration_metrics, fit_temperatures
from aerofuse.models.heads import scale_logits


def answers(temperature: float, images: int = 4000, classes: int = 10) -> tuple[Tensor, Tensor]:
    """Logits `[N, C]` that are `temperature` times those that their labels `[N]` were drawn from."""
    generator = torch.Generator().manual_seed(0)
    true = 3 * torch.randn(images, classes, generator=generator)
    labels = torch.multinomial(true.softmax(dim=1), 1, generator=generator).squeeze(1)
    return temperature * true, labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_is_found(temperature: float) -> None:
    logits, labels = answers(temperature)
    fitted = fit_temperatures({"type": logits}, {"type": labels})
    assert fitted["type"] == pytest.approx(temperature, rel=0.05)
    # No other nearby is better.
    best = cross_entropy(logits.double() / fitted["type"], labels)
    for other in (0.99, 1.01):
        assert cross_entropy(logits.double() / (other * fitted["type"]), labels) > best


def test_calibration_lowers_the_error_and_changes_no_answer() -> None:
    logits, labels = answers(2.5)
    outputs, targets = {"type": logits, "clarity": torch.rand(len(labels))}, {"type": labels}
    temperatures = fit_temperatures(outputs, targets)
    metrics = dict(calibration_metrics(outputs, targets, temperatures))
    assert metrics.keys() == {"type_ece", "type_ece_uncalibrated"}
    assert metrics["type_ece"] < 0.03 < 0.1 < metrics["type_ece_uncalibrated"]
    scaled = scale_logits(outputs, temperatures)
    assert torch.equal(scaled["type"].argmax(1), logits.argmax(1))
    assert torch.equal(scaled["clarity"], outputs["clarity"].double())


def test_the_error_is_that_of_the_paper() -> None:
    """Ten images at confidence 0.9, of which five are right, and ten at 0.6, of which six are."""
    labels = torch.tensor([0] * 5 + [1] * 5 + [0] * 6 + [1] * 4)
    confidence = torch.tensor([0.9] * 10 + [0.6] * 10, dtype=torch.float64)
    logits = torch.stack([confidence, 1 - confidence], dim=1).log()
    metrics = dict(calibration_metrics({"airline": logits}, {"airline": labels}, {"airline": 1.0}))
    assert metrics["airline_ece"] == pytest.approx(0.5 * abs(0.9 - 0.5), abs=1e-6)


def test_missing_labels_take_no_part() -> None:
    logits, labels = answers(2.0, images=500)
    wrong = torch.cat([logits, -logits])
    masked = torch.cat([labels, torch.full_like(labels, -1)])
    alone = fit_temperatures({"airline": logits}, {"airline": labels})
    assert fit_temperatures({"airline": wrong}, {"airline": masked}) == alone
    metrics = [
        dict(calibration_metrics({"airline": given}, {"airline": target}, alone))
        for given, target in ((logits, labels), (wrong, masked))
    ]
    assert metrics[0] == pytest.approx(metrics[1])


def test_without_any_label_nothing_is_changed_or_said() -> None:
    outputs, targets = {"airline": torch.randn(6, 3)}, {"airline": torch.full((6,), -1)}
    assert fit_temperatures(outputs, targets) == {"airline": 1.0}
    assert dict(calibration_metrics(outputs, targets, {"airline": 1.0})) == {}


@pytest.mark.parametrize(
    ("logits", "labels", "temperature"),
    [
        (torch.eye(4), torch.arange(4), LEAST_TEMPERATURE),  # all right: ever surer
        (torch.eye(4), torch.arange(4).roll(1), MOST_TEMPERATURE),  # all wrong: ever less sure
        (torch.zeros(4, 3), torch.arange(4) % 3, 1.0),  # nothing said
        (torch.randn(4, 1), torch.zeros(4, dtype=torch.int64), 1.0),  # one class
        (100 * torch.eye(4), torch.arange(4), 1.0),  # all right, and as sure as can be
    ],
    ids=["all right", "all wrong", "constant", "one class", "certain"],
)
def test_where_no_temperature_is_the_best(logits: Tensor, labels: Tensor, temperature: float) -> None:
    outputs, targets = {"type": logits}, {"type": labels}
    fitted = fit_temperatures(outputs, targets)
    assert fitted == {"type": temperature}
    assert all(math.isfinite(value) for _, value in calibration_metrics(outputs, targets, fitted))


def test_the_same_outputs_give_the_same_bits() -> None:
    logits, labels = answers(1.7, images=300)
    fits = [fit_temperatures({"type": logits.clone()}, {"type": labels.clone()}) for _ in range(2)]
    assert fits[0] == fits[1]


def test_what_cannot_be_scaled_is_refused() -> None:
    with pytest.raises(ValueError, match="no temperature for airline: the model is not calibrated"):
        scale_logits({"type": torch.zeros(1, 2), "airline": torch.zeros(1, 2)}, {"type": 1.0})
    with pytest.raises(ValueError, match="type: the model predicts NaN or infinity"):
        fit_temperatures({"type": torch.full((2, 2), torch.nan)}, {"type": torch.tensor([0, 1])})
