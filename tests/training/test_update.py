from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from aerofuse.data.labels import MISSING_CLASS, TASKS
from aerofuse.training.update import task_losses, weighted_sum

OUTPUTS = {
    "type": torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0], [0.5, 0.5, 3.0]]),
    "airline": torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]]),
    "clarity": torch.tensor([0.2, 0.9, 0.4]),
    "block": torch.tensor([0.1, 0.5, 0.0]),
}
TARGETS = {
    "type": torch.tensor([0, 2, 2]),
    "airline": torch.tensor([1, 1, 0]),
    "clarity": torch.tensor([0.3, 0.1, 0.4]),
    "block": torch.tensor([0.0, 0.8, 0.2]),
}


def test_without_missing_labels_they_are_the_usual_means() -> None:
    losses = task_losses(OUTPUTS, TARGETS)
    torch.testing.assert_close(losses["type"], F.cross_entropy(OUTPUTS["type"], TARGETS["type"]))
    torch.testing.assert_close(losses["clarity"], F.smooth_l1_loss(OUTPUTS["clarity"], TARGETS["clarity"]))


@pytest.mark.parametrize("task", TASKS)
def test_a_missing_label_counts_as_if_the_sample_were_not_there(task: str) -> None:
    missing = MISSING_CLASS if task in {"type", "airline"} else math.nan
    targets = TARGETS | {task: TARGETS[task].clone()}
    targets[task][1] = missing
    outputs = {name: value.clone().requires_grad_() for name, value in OUTPUTS.items()}
    losses = task_losses(outputs, targets)
    kept = torch.tensor([0, 2])
    without = task_losses(
        {name: value[kept] for name, value in OUTPUTS.items()}, {name: value[kept] for name, value in TARGETS.items()}
    )
    torch.testing.assert_close(losses[task], without[task])
    losses[task].backward()
    gradient = outputs[task].grad
    assert gradient is not None
    assert gradient[1].abs().sum() == 0
    assert gradient[0].abs().sum() > 0


@pytest.mark.parametrize("task", TASKS)
def test_a_batch_without_any_label_of_a_task_gives_zero_with_a_gradient(task: str) -> None:
    missing = MISSING_CLASS if task in {"type", "airline"} else math.nan
    targets = TARGETS | {task: torch.full_like(TARGETS[task], missing)}
    output = OUTPUTS[task].clone().requires_grad_()
    loss = task_losses({task: output}, targets)[task]
    loss.backward()
    assert float(loss.detach()) == 0
    assert output.grad is not None
    assert (output.grad == 0).all()


def test_the_sum_is_by_the_weights() -> None:
    losses = task_losses(OUTPUTS, TARGETS)
    weights = {"type": 1.0, "airline": 0.5, "clarity": 0.3, "block": 0.3}
    expected = sum(weights[task] * float(loss) for task, loss in losses.items())
    assert float(weighted_sum(losses, weights)) == pytest.approx(expected)


def test_half_precision_outputs_are_judged_in_float32() -> None:
    losses = task_losses({"type": OUTPUTS["type"].bfloat16()}, TARGETS)
    assert losses["type"].dtype == torch.float32


def test_smoothed_and_shared_labels() -> None:
    logits, labels = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 3, -1, 2, 2])
    shares = F.one_hot(labels.clamp(min=0), 4).float() * (labels != -1)[:, None]
    for smoothing in (0.0, 0.2):
        expected = F.cross_entropy(logits, labels, ignore_index=-1, label_smoothing=smoothing)
        for targets in (labels, shares):
            found = task_losses({"type": logits}, {"type": targets}, label_smoothing=smoothing)["type"]
            torch.testing.assert_close(found, expected)


def test_rare_classes_weigh_more() -> None:
    logits, labels = torch.zeros(4, 2), torch.tensor([0, 0, 0, 1])
    weights = {"type": torch.tensor([2 / 3, 2.0])}
    logits.requires_grad_(True)
    task_losses({"type": logits}, {"type": labels}, class_weights=weights)["type"].backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad[:3].sum(0), -logits.grad[3])  # both classes pull alike
