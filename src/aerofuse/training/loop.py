"""The training loop: epochs, validation, the best epoch, and the state to go on from."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn
from tqdm.auto import tqdm

from aerofuse.common.files import write_json
from aerofuse.data.dataset import TrainingLoader
from aerofuse.models.aircraft_model import AircraftModel
from aerofuse.training.distributed import shard
from aerofuse.training.interruption import Interruption
from aerofuse.training.memory_watch import AllocatorMeter, MemoryMeter
from aerofuse.training.micro_batches import Batch, MicroBatches
from aerofuse.training.mixing import mix
from aerofuse.training.optimizer import make_average, make_optimizer, make_schedule
from aerofuse.training.params import PhaseParams, TrainingParams
from aerofuse.training.state import Progress, TrainingReport, capture, restore
from aerofuse.training.state_folder import StateFolder
from aerofuse.training.update import NotFiniteError, Updater

logger = logging.getLogger(__name__)

Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Hooks:
    """Functions that the loop calls.

    `evaluate` returns the validation metrics of the model as it is, or of the average of its weights where there is
    one; the metric named `score` chooses the best epoch. `on_epoch` receives the metrics of each epoch, counted from 1.
    `on_best` keeps that model of an epoch that is the best so far; after a resumption the loop may call it again for
    the same epoch. `meter` measures the memory of every
    epoch and step. `what_would_fit` returns advice for when not even one image fits.
    """

    evaluate: Callable[[AircraftModel], Metrics]
    on_epoch: Callable[[int, Metrics], None]
    on_best: Callable[[AircraftModel, int, Metrics], None]
    meter: MemoryMeter = field(default_factory=MemoryMeter)
    what_would_fit: Callable[[], str] = lambda: "smaller images or a smaller backbone would need less"


def train(
    model: AircraftModel,
    loader: TrainingLoader,
    phase: PhaseParams,
    params: TrainingParams,
    accelerator: Accelerator,
    hooks: Hooks,
    states: StateFolder | None = None,
) -> TrainingReport:
    """Train the parts of `model` that are not frozen, for `phase.epochs` epochs.

    With `states`, which the caller has locked, the training goes on from the state saved there. It saves its own state
    after every epoch, after every `params.save_state_every` updates, and when a signal asks it to stop, which raises
    `InterruptedTraining`. A resumed training gives the same bits as one that was never stopped.

    Raises `FloatingPointError` with the names of the photos when the loss is no longer finite, and `MemoryError` where
    not even a single image fits.
    """
    prepared_model: nn.Module = model
    average = make_average(model, params.weight_averaging)
    if accelerator.num_processes > 1 and params.parallelism == "fsdp":
        shard(model)
        if average is not None:
            shard(average.module)
    else:
        prepared_model = accelerator.prepare(model)
        if params.compile:
            prepared_model = torch.compile(prepared_model)  # type: ignore[assignment]
    optimizer = make_optimizer(model, phase.learning_rate, params.weight_decay, params.layer_decay)
    updates_per_epoch = math.ceil(len(loader) / phase.accumulation_steps)
    schedule = make_schedule(optimizer, phase.epochs * updates_per_epoch, params.warmup_fraction)
    prepared_optimizer = accelerator.prepare(optimizer)
    hooks.meter.attach(model, optimizer, len(loader), phase.accumulation_steps)
    micro_batches = MicroBatches(model, params.on_out_of_memory, hooks.what_would_fit)
    weights = loader.split.class_weights() if params.class_balance == "loss" else {}
    num_classes = {task: len(names) for task, names in loader.split.classes.by_task.items()}
    updater = Updater(
        prepared_model,
        prepared_optimizer,
        schedule,
        params,
        accelerator,
        hooks.meter,
        micro_batches,
        average,
        partial(mix, params=params.mixing, num_classes=num_classes),
        {task: values.to(accelerator.device) for task, values in weights.items()},
    )
    return _TrainingLoop(model, loader, phase, params, accelerator, hooks, states, updater).run()


@dataclass
class _TrainingLoop:
    model: AircraftModel
    loader: TrainingLoader
    phase: PhaseParams
    params: TrainingParams
    accelerator: Accelerator
    hooks: Hooks
    states: StateFolder | None
    updater: Updater

    def __post_init__(self) -> None:
        self._interruption = Interruption()
        self._progress = Progress()
        self._saved: tuple[int, int] | None = None  # epoch and updates

    def run(self) -> TrainingReport:
        self._resume()
        report = self._progress.report
        with self._interruption.watch():
            for epoch in range(self._progress.epoch, self.phase.epochs + 1):
                if epoch > self._progress.epoch:
                    self._progress = Progress(report, epoch)
                self._train_epoch()
                # The state of the trained epoch is saved, so a signal may stop its evaluation at once.
                with self._interruption.at_once():
                    self._judge_epoch(epoch)
                patience = self.params.early_stopping
                if patience is not None and epoch - report.best_epoch >= patience:
                    logger.info("no better score for %d epochs: the stage ends early", patience)
                    break
        if isinstance(self.hooks.meter, AllocatorMeter):
            report.peak_memory_bytes = self.hooks.meter.peak_bytes
        return report

    def _resume(self) -> None:
        loaded = [self.states.load() if self.states is not None and self.accelerator.is_main_process else None]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(loaded)
        (state,) = loaded
        if state is None:
            if self.accelerator.is_main_process:
                logger.info("starting in epoch 1 of %d", self.phase.epochs)
            return
        self._progress = restore(state, self.updater)
        self._progress.report.resumed += 1
        epoch, updates = self._saved = self._progress.epoch, self._progress.totals.updates
        if self.accelerator.is_main_process:
            of_epoch = math.ceil(len(self.loader) / self.phase.accumulation_steps)
            message = "going on in epoch %d of %d, after %d of its %d updates"
            logger.info(message, epoch, self.phase.epochs, updates, of_epoch)
            # The resumed run's log has none of the earlier epochs.
            for judged in self._progress.report.history:
                self.hooks.on_epoch(int(judged["epoch"]), {name: judged[name] for name in judged if name != "epoch"})

    def _train_epoch(self) -> None:
        progress, report = self._progress, self._progress.report
        self.updater.model.train()
        with self.hooks.meter.epoch(), closing(self._groups()) as groups:
            started = time.perf_counter()
            for first_batch, batches in groups:
                stop = self._update(first_batch, batches)
                report.seconds += time.perf_counter() - started
                if stop or progress.totals.updates % self.params.save_state_every == 0:
                    self._save()
                if stop:
                    self._interruption.leave()
                started = time.perf_counter()
        self._save()

    def _groups(self) -> Generator[tuple[int, list[Batch]], None, None]:
        """Yield the batches of each update that the epoch still has to make, after the number of the first."""
        size = self.phase.accumulation_steps
        epoch, first = self._progress.epoch, self._progress.totals.updates * size
        batches = self.loader.epoch(epoch, first)
        hidden = None if self.accelerator.is_local_main_process else True  # None: shown on terminals
        title = f"epoch {epoch}/{self.phase.epochs}"
        with tqdm(
            total=len(self.loader), initial=first, desc=title, unit="batch", leave=False, disable=hidden, mininterval=1
        ) as bar:
            while group := list(islice(batches, size)):
                yield first, group
                first += len(group)
                bar.update(len(group))

    def _update(self, first_batch: int, batches: list[Batch]) -> bool:
        """Make one update, and return whether to stop after it."""
        progress = self._progress
        try:
            update = self.updater.update(batches, asked_to_stop=self._interruption.is_requested)
        except NotFiniteError as error:
            raise FloatingPointError(self._explain(error, first_batch + error.batch)) from None
        images = sum(self.loader.images(first_batch + number) for number in range(len(batches)))
        progress.totals.add(update, images, self.params.gradient_clip)
        progress.report.images += images
        alone = self.accelerator.num_processes == 1
        return update.asked_to_stop or (alone and self._interruption.is_requested)

    def _judge_epoch(self, epoch: int) -> None:
        report = self._progress.report
        metrics = self._progress.totals.of_all(self.accelerator).means()
        average = self.updater.average
        judged: AircraftModel = self.model if average is None else average.module
        metrics |= {name: float(value) for name, value in self.hooks.evaluate(judged).items()}
        report.history.append({"epoch": epoch, **metrics})
        if self.accelerator.is_main_process:
            logger.info("epoch %d: %s", epoch, "  ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
        self.hooks.on_epoch(epoch, metrics)
        if not report.best_metrics or metrics["score"] > report.best_metrics["score"]:
            report.best_epoch, report.best_metrics = epoch, metrics
            self.hooks.on_best(judged, epoch, metrics)

    def _save(self) -> None:
        here = self._progress.epoch, self._progress.totals.updates
        if self.states is None or here == self._saved:
            return
        state = capture(self._progress, self.updater)  # together with the other processes
        if self.accelerator.is_main_process:
            self._progress.report.saving_seconds += self.states.save(state)
        self._saved = here

    def _explain(self, error: NotFiniteError, batch: int) -> str:
        epoch = self._progress.epoch
        names = self.loader.names(epoch, batch)
        where = ""
        if self.states is not None and self.accelerator.is_main_process:
            path = self.states.path / "not_finite.json"
            write_json(path, {"epoch": epoch, "batch": batch, "photos": names})
            where = f"; all of them in {path}"
        return (
            f"{error} in epoch {epoch}, batch {batch}; lower the learning rate, or look at these photos: "
            f"{', '.join(names[:5])}{' ...' if len(names) > 5 else ''}{where}. The state before is kept: with other "
            "parameters the training begins anew"
        )
