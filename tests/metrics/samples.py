"""Made-up results of the three models, for tests of the comparison and its pictures."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from aerofuse.comparison.comparison import TRAINING_STAGES, ModelResults
from aerofuse.comparison.times import EvaluationTimes, TrainingTimes
from aerofuse.metrics.metrics import compute_metrics
from aerofuse.metrics.predictions import prediction_table

TYPES = tuple(f"Type {letter}" for letter in "ABCDEFG")
AIRLINES = ("Air A", "Air B", "Air C")
IMAGES = 120
PHASE_IMAGES_PER_SECOND = (300.0, 150.0, 100.0)


def labels() -> pd.DataFrame:
    """Labels of 120 images; every tenth has no airline."""
    generator = np.random.default_rng(0)
    airlines = [AIRLINES[i] for i in generator.integers(3, size=IMAGES)]
    return pd.DataFrame(
        {
            "filename": [f"{i:03d}.jpg" for i in range(IMAGES)],
            "typename": [TYPES[i] for i in generator.integers(7, size=IMAGES)],
            "airlinename": [None if i % 10 == 0 else name for i, name in enumerate(airlines)],
            "clarity": generator.random(IMAGES).round(3),
            "block": generator.random(IMAGES).round(3),
            "registration": None,
        }
    )


def outputs(table: pd.DataFrame, wrong_types: int, error: float) -> dict[str, Tensor]:
    """Outputs that take the first `wrong_types` images for the next type and are off by `error` elsewhere."""
    types = torch.tensor([TYPES.index(name) for name in table["typename"]])
    airlines = torch.tensor([AIRLINES.index(name) if isinstance(name, str) else 0 for name in table["airlinename"]])
    predicted = torch.where(torch.arange(IMAGES) < wrong_types, (types + 1) % len(TYPES), types)
    return {
        "type": 5 * torch.eye(len(TYPES))[predicted],
        "airline": 5 * torch.eye(len(AIRLINES))[airlines],
        "clarity": torch.tensor(table["clarity"].to_numpy() + error).float(),
        "block": torch.tensor(table["block"].to_numpy() - error).float(),
    }


def targets(table: pd.DataFrame) -> dict[str, Tensor]:
    return {
        "type": torch.tensor([TYPES.index(name) for name in table["typename"]]),
        "airline": torch.tensor(
            [AIRLINES.index(name) if isinstance(name, str) else -1 for name in table["airlinename"]]
        ),
        "clarity": torch.tensor(table["clarity"].to_numpy()).float(),
        "block": torch.tensor(table["block"].to_numpy()).float(),
    }


def results(hybrid_wrong: int = 6) -> dict[str, ModelResults]:
    """Single-task takes 18 of 120 types wrong, multi-task 12, the hybrid `hybrid_wrong`."""
    table = labels()
    found = {}
    for model, wrong, error in (("single_task", 18, 0.0), ("multi_task", 12, 0.1), ("hybrid", hybrid_wrong, 0.05)):
        given = outputs(table, wrong, error)
        if model == "single_task":
            given = {"type": given["type"]}
        metrics = dict(compute_metrics(given, targets(table)))
        if model != "single_task":
            metrics |= {"clarity_mae_constant": 0.25, "block_mae_constant": 0.24}
        speeds = PHASE_IMAGES_PER_SECOND[: len(TRAINING_STAGES[model])]
        found[model] = ModelResults(
            metrics,
            prediction_table(table, given, TYPES, AIRLINES, uncalibrated=given),
            EvaluationTimes(20.0, 25.0, "Some CPU, 2 threads", 0.04, 1_500_000, 96),
            tuple(
                TrainingTimes(60.0, 0.0, 2, 2, 6000, speed, "Some CPU, 2 threads", 0.3, None, 0.1, 0)
                for speed in speeds
            ),
        )
    return found
