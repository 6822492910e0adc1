from __future__ import annotations

import math

import pandas as pd
import pytest
import torch
from torch import Tensor

from aerofuse.metrics.metrics import compute_metrics, constant_predictor_maes, validation_score

NAN = math.nan


def logits_for(ranking: list[list[int]], classes: int) -> Tensor:
    """Logits that put the listed classes first, in their order."""
    logits = torch.zeros(len(ranking), classes)
    for row, best in enumerate(ranking):
        for place, index in enumerate(best):
            logits[row, index] = 10 - place
    return logits


def random_batch(samples: int = 40) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    outputs = {
        "type": torch.randn(samples, 7, generator=generator),
        "airline": torch.randn(samples, 4, generator=generator),
        "clarity": torch.rand(samples, generator=generator),
        "block": torch.rand(samples, generator=generator),
    }
    targets = {
        "type": torch.randint(7, (samples,), generator=generator),
        "airline": torch.randint(4, (samples,), generator=generator),
        "clarity": torch.rand(samples, generator=generator),
        "block": torch.rand(samples, generator=generator),
    }
    return outputs, targets


def test_classification_counted_by_hand() -> None:
    ranking = [[0], [1], [2, 0], [3, 4, 5, 6, 0, 1], [0, 2, 3, 4, 1]]
    targets = {"type": torch.tensor([0, 1, 0, 1, 1])}
    metrics = dict(compute_metrics({"type": logits_for(ranking, 8)}, targets))
    assert metrics["type_labelled"] == 5
    assert metrics["type_top1"] == pytest.approx(2 / 5)  # the first two
    assert metrics["type_top5"] == pytest.approx(4 / 5)  # not the fourth, whose class 1 comes sixth
    # F1 by class: 0: 1 right, 1 wrongly said, 1 missed: 1/2; 1: 1 right, 2 missed: 1/2; 2 and 3, said wrongly: 0
    assert metrics["type_macro_f1"] == pytest.approx((1 / 2 + 1 / 2 + 0 + 0) / 4)


def test_macro_f1_is_that_of_scikit_learn() -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    outputs, targets = random_batch()
    expected = sklearn_metrics.f1_score(targets["type"], outputs["type"].argmax(1), average="macro")
    assert dict(compute_metrics(outputs, targets))["type_macro_f1"] == pytest.approx(expected)


def test_regression_computed_by_hand() -> None:
    outputs = {"clarity": torch.tensor([0.1, 0.4, 0.5, 1.0])}
    targets = {"clarity": torch.tensor([0.2, 0.2, 0.6, 0.8])}
    metrics = dict(compute_metrics(outputs, targets))
    assert metrics["clarity_mae"] == pytest.approx((0.1 + 0.2 + 0.1 + 0.2) / 4)
    assert metrics["clarity_rmse"] == pytest.approx(math.sqrt((0.01 + 0.04 + 0.01 + 0.04) / 4))
    # means 0.5 and 0.45; deviations (-.4, -.1, 0, .5) and (-.25, -.25, .15, .35)
    assert metrics["clarity_plcc"] == pytest.approx(0.3 / math.sqrt(0.42 * 0.27))
    # ranks (1, 2, 3, 4) and (1.5, 1.5, 3, 4)
    assert metrics["clarity_srcc"] == pytest.approx(4.5 / math.sqrt(5.0 * 4.5))


def test_a_missing_label_changes_nothing_but_by_being_absent() -> None:
    outputs, targets = random_batch()
    keep = torch.arange(40) % 3 != 0
    masked = {task: labels.clone() for task, labels in targets.items()}
    for task in ("type", "airline"):
        masked[task][~keep] = -1
    for task in ("clarity", "block"):
        masked[task][~keep] = NAN
    without = dict(
        compute_metrics(
            {task: output[keep] for task, output in outputs.items()},
            {task: labels[keep] for task, labels in targets.items()},
        )
    )
    assert dict(compute_metrics(outputs, masked)) == without
    assert without["airline_labelled"] == keep.sum()
    assert dict(compute_metrics(outputs, targets)) != without


def test_a_task_without_labels_gives_only_its_count() -> None:
    outputs, targets = random_batch()
    targets["airline"] = torch.full_like(targets["airline"], -1)
    targets["block"] = torch.full_like(targets["block"], NAN)
    metrics = dict(compute_metrics(outputs, targets))
    assert metrics["airline_labelled"] == metrics["block_labelled"] == 0
    assert {name for name in metrics if name.startswith(("airline", "block"))} == {"airline_labelled", "block_labelled"}
    assert "clarity_mae" in metrics


def test_a_single_task_model_has_metrics_of_type_only() -> None:
    outputs, targets = random_batch()
    metrics = dict(compute_metrics({"type": outputs["type"]}, targets))
    of_type = {"type_labelled", "type_top1", "type_top5", "type_macro_f1"}
    assert set(metrics) == of_type | {"sharp_labelled", "sharp_type_top1"}


@pytest.mark.parametrize("constant", ["outputs", "targets"])
def test_correlations_with_a_constant_are_left_out(constant: str) -> None:
    outputs, targets = random_batch()
    side = outputs if constant == "outputs" else targets
    side["clarity"] = torch.full_like(side["clarity"], 0.3)
    metrics = dict(compute_metrics(outputs, targets))
    assert "clarity_mae" in metrics
    assert "clarity_plcc" not in metrics
    assert "clarity_srcc" not in metrics
    assert "block_plcc" in metrics


def test_few_classes() -> None:
    outputs = {"type": logits_for([[0], [1]], 2), "airline": torch.zeros(2, 1)}
    metrics = dict(compute_metrics(outputs, {"type": torch.tensor([0, 0]), "airline": torch.tensor([0, 0])}))
    assert metrics["type_top5"] == 1
    assert metrics["type_top1"] == 0.5
    assert metrics["airline_top1"] == 1


def test_what_cannot_be_evaluated_is_refused() -> None:
    outputs, targets = random_batch()
    with pytest.raises(ValueError, match="no such task: colour; there are type, airline"):
        dict(compute_metrics({"colour": outputs["clarity"]}, targets))
    with pytest.raises(ValueError, match="type: 40 predictions, 39 targets"):
        dict(compute_metrics(outputs, targets | {"type": targets["type"][1:]}))
    with pytest.raises(ValueError, match="type: 40 predictions, no targets"):
        dict(compute_metrics(outputs, {}))
    outputs["block"][3] = NAN
    with pytest.raises(ValueError, match="block: the model predicts NaN"):
        dict(compute_metrics(outputs, targets))


def test_score_of_all_tasks() -> None:
    metrics = {"type_top1": 0.8, "airline_top1": 0.6, "clarity_mae": 0.1, "block_mae": 0.2, "type_top5": 0.1}
    assert validation_score(metrics) == pytest.approx(0.5 * 0.8 + 0.2 * 0.6 + 0.15 * 0.9 + 0.15 * 0.8)


def test_score_of_some_tasks_is_scaled_to_their_weights() -> None:
    assert validation_score({"type_top1": 0.37}) == pytest.approx(0.37)
    expected = (0.5 * 0.8 + 0.15 * 0.9) / 0.65
    assert validation_score({"type_top1": 0.8, "clarity_mae": 0.1}) == pytest.approx(expected)
    with pytest.raises(ValueError, match="found: type_top5"):
        validation_score({"type_top5": 1.0})


def test_constant_predictor() -> None:
    """The median of the training labels, for the tasks with labels on both sides."""
    train = pd.DataFrame({"clarity": [0.1, NAN, 0.2, 0.9], "block": [None, None, None, None]})
    test = pd.DataFrame({"clarity": [0.2, 0.5, NAN, 0.0], "block": [0.1, 0.2, None, None]})
    assert constant_predictor_maes(train, test) == {"clarity_mae_constant": pytest.approx((0.0 + 0.3 + 0.2) / 3)}
    assert constant_predictor_maes(train, test.assign(clarity=NAN)) == {}


def test_sharp_photos_are_counted_by_their_label_of_clarity() -> None:
    logits = logits_for([[0], [1], [2], [3], [0]], 4)
    clarity = torch.tensor([0.95, 0.99, 0.9, NAN, 0.91])
    metrics = dict(compute_metrics({"type": logits}, {"type": torch.tensor([0, 0, 2, 3, -1]), "clarity": clarity}))
    assert metrics["sharp_labelled"] == 2  # 0.9 is not above it; the last has no type
    assert metrics["sharp_type_top1"] == pytest.approx(1 / 2)
    blurred = {"type": torch.zeros(5, dtype=torch.int64), "clarity": torch.full((5,), 0.3)}
    assert "sharp_labelled" not in dict(compute_metrics({"type": logits}, blurred))
