"""A real training of a small model on drawn photos, for the tests of what may happen to one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from aerofuse.common.params import load_section
from aerofuse.data.dataset import PreparedSplit, TrainingLoader
from aerofuse.data.labels import TASKS, ClassLists
from aerofuse.data.transforms import make_augmentation
from aerofuse.models.aircraft_model import AircraftModel
from aerofuse.training.loop import Hooks, train
from aerofuse.training.params import PhaseParams, TrainingParams
from aerofuse.training.state import TrainingReport
from aerofuse.training.state_folder import StateFolder
from tests.models.architectures import baseline_architecture

PARAMS = load_section(TrainingParams, "recipes.{recipe}.training")


@dataclass
class SmallTraining:
    """Two epochs of 96 photos in batches of 16, two batches an update; dropout and drop-path on.

    `before_update` is called with the number of each update, over all epochs; `before_judging` with each epoch's.
    """

    folder: Path
    classes: ClassLists
    states: StateFolder | None = None
    before_update: Callable[[int], object] = lambda number: None
    before_judging: Callable[[int], object] = lambda epoch: None
    params: Mapping[str, Any] = field(default_factory=dict)
    num_workers: int = 0
    best: list[int] = field(default_factory=list)
    told: list[dict[str, float]] = field(default_factory=list)
    judged: list[str] = field(default_factory=list)  # the weights of each epoch

    def run(self) -> tuple[AircraftModel, TrainingReport]:
        torch.manual_seed(0)
        np.random.seed(0)
        model = baseline_architecture("convnext_thin", TASKS, 0.1, 0.1, 96).build(self.classes)
        params = TrainingParams.model_validate({**PARAMS.model_dump(), "save_state_every": 2, **self.params})
        split = PreparedSplit(self.folder / "train.arrow", self.classes, make_augmentation(params.augmentation, 0))
        loader = _Told(split, batch_size=16, num_workers=self.num_workers, seed=0, shuffle_shards=params.shuffle_shards)
        loader.tell = self.before_update
        phase = PhaseParams(epochs=2, learning_rate=1e-3, batch_size=16, accumulation_steps=2)
        judged = iter(range(1, 100))

        def evaluate(model: AircraftModel) -> dict[str, float]:
            self.before_judging(next(judged))
            self.judged.append(weights(model))
            model.eval()
            with torch.no_grad():
                outputs = model(split[0][0][None])
            return {"score": float(outputs["clarity"])}

        def on_epoch(epoch: int, metrics: Mapping[str, float]) -> None:
            self.told.append({"epoch": epoch, **metrics})

        hooks = Hooks(evaluate, on_epoch, lambda _, epoch, __: self.best.append(epoch))
        return model, train(model, loader, phase, params, Accelerator(cpu=True), hooks, self.states)


class _Told(TrainingLoader):
    tell: Callable[[int], object]

    def epoch(self, epoch: int, first: int = 0) -> Any:
        for number, batch in enumerate(super().epoch(epoch, first), start=first):
            if number % 2 == 0:
                self.tell((epoch - 1) * len(self) // 2 + number // 2)
            yield batch


def digest(model: AircraftModel, report: TrainingReport) -> str:
    """Of every bit of the weights, and of the history."""
    return hashlib.sha256((repr(report.history) + weights(model)).encode()).hexdigest()


def weights(model: AircraftModel) -> str:
    content = hashlib.sha256()
    for name, value in model.state_dict().items():
        content.update(name.encode())
        content.update(value.numpy().tobytes())
    return content.hexdigest()
