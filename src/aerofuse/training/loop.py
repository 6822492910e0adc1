"""One training loop for every model and phase."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from aerofuse.data.dataset import Sample
from aerofuse.models.parts import AircraftModel
from aerofuse.params.training import PhaseParams, TrainingParams
from aerofuse.training.losses import task_losses, weighted_sum
from aerofuse.training.memory_watch import MemoryMeter
from aerofuse.training.optimisation import make_optimizer, make_schedule

logger = logging.getLogger(__name__)

Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Hooks:
    """What the loop calls and knows nothing of.

    `evaluate` gives the validation metrics of the model as it is, among them `score`, by which the best epoch is
    chosen; `on_epoch` receives the metrics of each epoch (counted from 1); `on_best` is called when an epoch is
    the best so far, to keep the model. `meter` is told of every epoch and step, and measures the memory they take.
    """

    evaluate: Callable[[AircraftModel], Metrics]
    on_epoch: Callable[[int, Metrics], None]
    on_best: Callable[[int, Metrics], None]
    meter: MemoryMeter = field(default_factory=MemoryMeter)


@dataclass
class TrainingReport:
    """What a training did: metrics per epoch, the best epoch, and the time spent in training steps."""

    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    images: int = 0
    peak_memory_bytes: int | None = None  # of a GPU's allocator in training steps, where the hooks have a meter for it

    @property
    def images_per_second(self) -> float:
        """Training speed, validation and loading of the model left out."""
        return self.images / self.seconds if self.seconds else math.nan


def train(
    model: AircraftModel,
    loader: DataLoader[Sample],
    phase: PhaseParams,
    params: TrainingParams,
    accelerator: Accelerator,
    hooks: Hooks,
) -> TrainingReport:
    """Train the parts of `model` that are not frozen, for `phase.epochs` epochs.

    Raises `FloatingPointError` when the loss is no longer finite.
    """
    optimizer = make_optimizer(model, phase.learning_rate, params.weight_decay)
    prepared_model, prepared_optimizer, prepared_loader = accelerator.prepare(model, optimizer, loader)
    steps_per_epoch = math.ceil(len(prepared_loader) / phase.accumulation_steps)
    schedule = make_schedule(optimizer, phase.epochs * steps_per_epoch, params.warmup_fraction)
    hooks.meter.attach(model, optimizer, len(prepared_loader), phase.accumulation_steps)
    epoch_runner = _EpochRunner(
        prepared_model, prepared_optimizer, prepared_loader, schedule, params, accelerator, hooks.meter
    )
    report = TrainingReport()
    for epoch in range(1, phase.epochs + 1):
        started = time.perf_counter()
        with hooks.meter.epoch():
            losses, images = epoch_runner.run(f"epoch {epoch}/{phase.epochs}")
        report.seconds += time.perf_counter() - started
        report.images += images
        metrics = {**losses, **hooks.evaluate(model)}
        report.history.append({"epoch": epoch, **metrics})
        logger.info("epoch %d: %s", epoch, "  ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
        hooks.on_epoch(epoch, metrics)
        if not report.best_metrics or metrics["score"] > report.best_metrics["score"]:
            report.best_epoch, report.best_metrics = epoch, metrics
            hooks.on_best(epoch, metrics)
    report.peak_memory_bytes = hooks.meter.allocator_peak_bytes
    return report


@dataclass
class _EpochRunner:
    model: torch.nn.Module
    optimizer: Optimizer
    loader: DataLoader[Sample]
    schedule: LambdaLR
    params: TrainingParams
    accelerator: Accelerator
    meter: MemoryMeter

    def run(self, title: str) -> tuple[dict[str, float], int]:
        """One pass over the data: the mean loss per task and in all, and the number of images seen."""
        self.model.train()
        weights = self.params.task_weights.model_dump()
        sums: dict[str, Tensor] = {}
        images = 0
        hidden = None if self.accelerator.is_local_main_process else True  # None: shown on terminals
        for inputs, targets in tqdm(self.loader, desc=title, unit="batch", leave=False, disable=hidden, mininterval=1):
            with self.meter.step(inputs):
                losses = self._step(inputs, targets, weights)
            images += len(inputs) * self.accelerator.num_processes
            for name, loss in losses.items():
                sums[name] = sums.get(name, torch.zeros((), device=loss.device)) + loss * len(inputs)
        return {
            f"train_{name}": float(total) * self.accelerator.num_processes / images for name, total in sums.items()
        }, images

    def _step(self, inputs: Tensor, targets: dict[str, Tensor], weights: Mapping[str, float]) -> dict[str, Tensor]:
        with self.accelerator.accumulate(self.model):
            with self.accelerator.autocast():
                outputs = self.model(inputs)
            losses = task_losses(outputs, targets)
            loss = weighted_sum(losses, weights)
            if not torch.isfinite(loss):
                values = ", ".join(f"{task} {float(value.detach()):.4g}" for task, value in losses.items())
                raise FloatingPointError(f"the loss is no longer finite ({values}); lower the learning rate")
            self.accelerator.backward(loss)
            if self.accelerator.sync_gradients:
                self.accelerator.clip_grad_norm_(self.model.parameters(), self.params.gradient_clip)
            self.optimizer.step()
            self.optimizer.zero_grad()
            if self.accelerator.sync_gradients:
                self.schedule.step()
        return {"loss": loss.detach()} | {f"{task}_loss": value.detach() for task, value in losses.items()}
