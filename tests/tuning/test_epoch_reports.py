from __future__ import annotations

import optuna
import pytest

from aerofuse.tuning.worker import EpochReports

STAGES = ("train_hybrid@stage_a", "train_hybrid@stage_c")


def _lines(*scores: float) -> list[str]:
    """What DVC and two trainings print, with the last of the scores in the second."""
    epochs = [f"epoch {n}: train_loss 2.1  score {score:.4f}  type_top1 0.9" for n, score in enumerate(scores, start=1)]
    last = epochs.pop().replace(f"epoch {len(scores)}", "epoch 1")
    return [
        "Running stage 'train_baseline@multi_task':",
        "epoch 1: train_loss 1.0  score 0.9999",
        "Running stage 'train_hybrid@stage_a':",
        "starting in epoch 1 of 2",
        *epochs,
        "Running stage 'train_hybrid@stage_c':",
        last,
        "Running stage 'evaluate@hybrid':",
        "epoch 9: score 0.1",
    ]


def test_the_score_of_each_epoch_of_its_stages_is_reported() -> None:
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.NopPruner())
    reports = EpochReports(study.ask(), STAGES)
    for line in _lines(0.25, 0.5, 0.75):
        reports(line)
    assert study.trials[0].intermediate_values == {1: 0.25, 2: 0.5, 1001: 0.75}


def test_a_trial_that_falls_behind_is_pruned() -> None:
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.MedianPruner(n_startup_trials=1))
    first = study.ask()
    reports = EpochReports(first, STAGES)
    for line in _lines(0.5, 0.6, 0.7):
        reports(line)
    study.tell(first, 0.7)
    behind = EpochReports(study.ask(), STAGES)
    *before, epoch = _lines(0.4, 0.6, 0.7)[:5]
    for line in before:
        behind(line)
    with pytest.raises(optuna.TrialPruned, match=r"train_hybrid@stage_a, epoch 1: score 0\.4"):
        behind(epoch)
