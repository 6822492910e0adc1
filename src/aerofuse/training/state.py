"""The state of a training: its report so far, and everything that it needs to go on with the next update."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from aerofuse.training.distributed import load_whole_state, load_whole_weights, whole_state, whole_weights
from aerofuse.training.update import Update, Updater


@dataclass
class TrainingReport:
    """Metrics per epoch, the best epoch, and the seconds spent in training steps."""

    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    images: int = 0
    peak_memory_bytes: int | None = None  # of a GPU's allocator in training steps, where the hooks have a meter for it
    saving_seconds: float = 0.0
    resumed: int = 0  # how often the training went on from a saved state

    @property
    def images_per_second(self) -> float:
        """Return the speed of training steps, without validation and loading of the model."""
        return self.images / self.seconds if self.seconds else math.nan


@dataclass
class EpochTotals:
    """Sums over the updates of one epoch so far; tensors are scalars on the device."""

    losses: dict[str, Tensor] = field(default_factory=dict)  # sums over images
    images: int = 0
    updates: int = 0
    norm_sum: Tensor = field(default_factory=lambda: torch.zeros(()))
    norm_max: Tensor = field(default_factory=lambda: torch.zeros(()))
    clipped: Tensor = field(default_factory=lambda: torch.zeros(()))

    def add(self, update: Update, images: int, gradient_clip: float) -> None:
        """Add an update of `images` images."""
        for name, loss in update.losses.items():
            self.losses[name] = self.losses.get(name, 0) + loss * images
        norm = update.gradient_norm
        # In fp16 a norm may be infinite now and then; the scaler skips such a step.
        finite = torch.where(norm.isfinite(), norm, torch.zeros_like(norm))
        self.norm_sum = self.norm_sum.to(norm.device) + finite
        self.norm_max = torch.maximum(self.norm_max.to(norm.device), finite)
        self.clipped = self.clipped.to(norm.device) + (norm > gradient_clip)
        self.images += images
        self.updates += 1

    def of_all(self, accelerator: Accelerator) -> EpochTotals:
        """Return the totals with the losses of all processes. All of them call it."""
        if accelerator.num_processes == 1:
            return self
        return dataclasses.replace(self, losses=accelerator.reduce(self.losses, "sum"))

    def means(self) -> dict[str, float]:
        """Return mean losses, the mean and largest norm of the gradient, and the share of clipped updates."""
        return {f"train_{name}": float(total) / self.images for name, total in self.losses.items()} | {
            "gradient_norm": float(self.norm_sum) / self.updates,
            "gradient_norm_max": float(self.norm_max),
            "clipped": float(self.clipped) / self.updates,
        }


@dataclass
class Progress:
    """How far a training is: `epoch`, counted from 1, is running, and `totals` are its sums so far."""

    report: TrainingReport = field(default_factory=TrainingReport)
    epoch: int = 1
    totals: EpochTotals = field(default_factory=EpochTotals)


def capture(progress: Progress, updater: Updater) -> dict[str, Any]:
    """Return the whole state in types that `torch.load` reads with `weights_only`. All processes call it."""
    accelerator = updater.accelerator
    whole = dataclasses.replace(progress, totals=progress.totals.of_all(accelerator))
    weights, optimizer_state = whole_state(updater.plain_model, updater.optimizer)
    return {
        "progress": dataclasses.asdict(whole),
        "model": weights,
        "optimizer": optimizer_state,
        "average": None if updater.average is None else dict(whole_weights(updater.average.module)),
        "schedule": updater.schedule.state_dict(),
        "scaler": None if accelerator.scaler is None else accelerator.scaler.state_dict(),
        "micro_batches": updater.micro_batches.state(),
        "random": gather_object([_capture_random_states(accelerator.device)]),
    }


def restore(state: Mapping[str, Any], updater: Updater) -> Progress:
    """Restore a state that `capture` returned, and return its progress. All processes call it."""
    accelerator = updater.accelerator
    load_whole_state(updater.plain_model, updater.optimizer, state["model"], state["optimizer"])
    if updater.average is not None:
        load_whole_weights(updater.average.module, state["average"])
    updater.schedule.load_state_dict(state["schedule"])
    if accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(state["scaler"])
    updater.micro_batches.restore(state["micro_batches"])
    _restore_random_states(state["random"][accelerator.process_index], accelerator.device)
    progress = dict(state["progress"])
    totals = EpochTotals(**progress.pop("totals"))
    # They are sums over all processes: the first goes on with them, and the others begin with zero.
    share = 1 if accelerator.is_main_process else 0
    totals.losses = {name: share * loss.to(accelerator.device) for name, loss in totals.losses.items()}
    return Progress(TrainingReport(**progress.pop("report")), totals=totals, **progress)


def _capture_random_states(device: torch.device) -> dict[str, Any]:
    """Return the states of Python's, numpy's and torch's generators. Workers have none: see `EpochBatches`."""
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "device": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def _restore_random_states(states: Mapping[str, Any], device: torch.device) -> None:
    random.setstate(states["python"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["device"], device)
