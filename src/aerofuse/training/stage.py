"""What the five training stages of the pipeline share: read, build, train, keep the best, write."""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from accelerate.utils import set_seed
from torch import Tensor
from torch.utils.data import DataLoader

from aerofuse.checkpointing.budget import format_bytes
from aerofuse.common.files import write_json
from aerofuse.common.hardware import OtherWork, device_name
from aerofuse.common.params import load_section, load_value
from aerofuse.data.dataset import PreparedSplit, Sample, TrainingLoader, make_loader
from aerofuse.data.labels import ClassLists
from aerofuse.data.transforms import make_augmentation
from aerofuse.metrics.calibration import fit_temperatures
from aerofuse.metrics.collect import collect_outputs
from aerofuse.metrics.metrics import compute_metrics, validation_score
from aerofuse.models.aircraft_model import AircraftModel
from aerofuse.models.architecture import HybridModel
from aerofuse.models.files import ModelRecord, save_model
from aerofuse.plotting.learning import draw_learning_curves
from aerofuse.plotting.wording import STAGES
from aerofuse.tracking.tracker import Tracker, TrackingParams, track_run
from aerofuse.training.distributed import make_accelerator, whole_weights
from aerofuse.training.features import FeatureSplit, FusedHeads, Packing, see_photos
from aerofuse.training.fitting import LARGEST_BATCH_SEEN_BY_CPU, fit_training
from aerofuse.training.loop import Hooks, train
from aerofuse.training.memory_watch import MemoryWatch
from aerofuse.training.params import AUTO, CheckpointingParams, MixingParams, PhaseParams, TrainingParams
from aerofuse.training.phases import PHASES, start_model
from aerofuse.training.state import TrainingReport
from aerofuse.training.state_folder import StateFolder, training_key
from aerofuse.training.step_memory import StepMemory

PREPARED_FOLDER = Path("data/prepared")
RESUME_FOLDER = Path(".resume")
_SEEING_BATCHES = (128, LARGEST_BATCH_SEEN_BY_CPU, 8)  # images that frozen backbones see at once
logger = logging.getLogger(__name__)


def train_stage(stage: str) -> TrainingReport:
    """Run the training stage named `stage` from the root of the repository and write all its outputs.

    The model folder `models/<output>`, `metrics/train/<stage>.json`, `plots/history/<stage>.csv` and `.png`, and
    `reports/times/<stage>.json`. A training that was stopped, by whatever, goes on where it was: see `StateFolder`.
    """
    training = _Training(stage)
    with training.writing_alone() as tracker:
        tracker.log_params(training.described())
        training.watch.announce(tracker)
        report = training.run(tracker)
        if training.accelerator.is_main_process:
            for path in training.write(report):
                tracker.log_artifact(path)
            training.states.end()
    training.accelerator.end_training()
    return report


class _Training:
    """A training that is ready to begin: which model, on what, in which steps, and where its states are."""

    def __init__(self, stage: str) -> None:
        """Read the parameters and the data, build the model, and find what fits."""
        self.other_work = OtherWork()
        self.stage, self.phase = stage, PHASES[stage]
        self.phase_params = phase_params = load_section(PhaseParams, f"recipes.{{recipe}}.{stage}")
        self.params = params = load_section(TrainingParams, "recipes.{recipe}.training")
        self.seed = seed = load_value(int, "seed")
        set_seed(seed)
        torch.use_deterministic_algorithms(True, warn_only=True)
        self.classes = ClassLists.load(PREPARED_FOLDER)
        augment = make_augmentation(params.augmentation, seed)
        split = PreparedSplit(PREPARED_FOLDER / "train.arrow", self.classes, augment)
        validation_split = PreparedSplit(PREPARED_FOLDER / "validation.arrow", self.classes)
        self.fit_to_square = split.fit
        self.model, self.architecture = start_model(self.phase, self.classes, split.labelled_tasks)
        self.model.train_only(self.phase.trains)
        self.accelerator = make_accelerator(params.mixed_precision)
        self.model.to(self.accelerator.device)  # where its steps are counted and planned for
        if params.channels_last:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
        processes = self.accelerator.num_processes
        self.step = StepMemory(self.model, self.architecture.image_size_px, params, phase_params.accumulation_steps)
        self.as_learner: Callable[[AircraftModel], AircraftModel] = lambda model: model
        self.views: int | None = None  # of each photo, where the learner sees features
        self.seeing_seconds = 0.0
        self._validated: tuple[dict[str, Tensor], dict[str, Tensor]] = {}, {}  # outputs and targets of the last epoch
        self._unlearned: dict[str, Tensor] = {}  # weights of the model that are not the learner's
        if isinstance(self.model, HybridModel) and self.phase.freezes_backbones and params.feature_views:
            split, validation_split = self._see_photos(self.model, split, validation_split)
            params = self.params
        fit = fit_training(self.step, len(split), _share(phase_params, processes), params, processes)
        self.watch = MemoryWatch(self.step, fit, min(params.largest_batch_size, len(split)))
        batch_size = fit.batch_size if phase_params.batch_size == AUTO else int(phase_params.batch_size)
        workers = 0 if isinstance(split, FeatureSplit) else params.num_workers
        self.loader = TrainingLoader(
            split,
            batch_size=batch_size,
            num_workers=workers,
            seed=seed,
            rank=self.accelerator.process_index,
            num_processes=processes,
            balanced=params.class_balance == "sampling",
            shuffle_shards=params.shuffle_shards,
        )
        again = None if isinstance(split, FeatureSplit) else split.photos.fetched_again(params.shuffle_shards)
        if again is not None and self.accelerator.is_main_process:
            logger.warning(again)
        validation = make_loader(validation_split, batch_size=fit.validation_batch_size, num_workers=workers)
        self.validation: DataLoader[Sample] = self.accelerator.prepare(validation)
        # A batch size that was found on another device makes another training, and so do other parts of a batch.
        settings = [self.described(), batch_size, processes]
        key = training_key(settings, [PREPARED_FOLDER, *self.phase.start_files()])
        self.states = StateFolder(_resume_folder() / stage / key)
        self.states.path.mkdir(parents=True, exist_ok=True)
        self.states.forget_others()

    def _see_photos(
        self, hybrid: HybridModel, train: PreparedSplit, validation: PreparedSplit
    ) -> tuple[FeatureSplit, FeatureSplit]:
        """Let the frozen backbones see all photos once; from here on, fusion and heads learn from what they found."""
        image_size_px = self.architecture.image_size_px
        packing = Packing.of(hybrid, image_size_px)
        sizes = _SEEING_BATCHES[1:] if self.step.device.type == "cpu" else _SEEING_BATCHES
        fits = (size for size in sizes if self.step.count_evaluation(size) <= self.step.available_bytes())
        settings = [
            packing.shapes,
            vars(self.architecture) | {"fusion_method": None, "head_dropout": None},
            self.params.augmentation.model_dump(),
            self.params.feature_views,
            self.params.mixed_precision,
            self.seed,
        ]
        key = training_key(settings, [PREPARED_FOLDER, *self.phase.start_files()])
        seen = see_photos(
            hybrid,
            packing,
            train,
            validation,
            self.params.feature_views,
            next(fits, 1),
            self.params.num_workers,
            self.accelerator,
            _resume_folder() / "features" / key,
        )
        for backbone in hybrid.backbones().values():
            backbone.cpu()  # they have seen everything
        self.as_learner = partial(FusedHeads, packing=packing)
        self._unlearned = hybrid.state_dict()
        self.views, self.seeing_seconds = self.params.feature_views, seen.seconds
        # Features are not mixed as photos are, and there is no backbone left to checkpoint.
        off = {"gradient_checkpointing": CheckpointingParams(policy="none"), "mixing": MixingParams.off()}
        self.params = self.params.model_copy(update=off)
        steps = self.phase_params.accumulation_steps
        self.step = StepMemory(self.as_learner(hybrid), image_size_px, self.params, steps, packing.length)
        return seen.train, seen.validation

    def described(self) -> dict[str, object]:
        """What the run is logged with."""
        return {
            "seed": self.seed,
            "architecture": vars(self.architecture),
            self.stage: self.phase_params.model_dump(),
            "training": self.params.model_dump(),
        }

    @contextmanager
    def writing_alone(self) -> Iterator[Tracker]:
        """The run to log to, and the states locked; of several processes the first does both, and the rest nothing."""
        if not self.accelerator.is_main_process:
            yield Tracker()
            return
        with self.states.locked(), track_run(self.stage, load_section(TrackingParams, "tracking")) as tracker:
            yield tracker

    def run(self, tracker: Tracker) -> TrainingReport:
        """Train to the end, from the last state where there is one; the best model is in `states.best_model`."""

        def log_epoch(epoch: int, metrics: Mapping[str, float]) -> None:
            tracker.log_metrics({**metrics, **self.watch.metrics()}, epoch)

        hooks = Hooks(self._evaluate, log_epoch, self._keep_best, self.watch.meter, self._say_what_would_fit)
        # From here on every process draws numbers of its own for dropout; all have the same model.
        set_seed(self.seed, device_specific=True)
        learner = self.as_learner(self.model)
        report = train(learner, self.loader, self.phase_params, self.params, self.accelerator, hooks, self.states)
        report.seconds += self.seeing_seconds
        return report

    def write(self, report: TrainingReport) -> list[Path]:
        """Write the best model, its epoch, the history as a table and a picture, and times and memory.

        The files of records are returned.
        """
        stage = self.stage
        shutil.copytree(self.states.best_model, Path("models") / self.phase.output, dirs_exist_ok=True)
        metrics, times = Path("metrics/train") / f"{stage}.json", Path("reports/times") / f"{stage}.json"
        history = Path("plots/history") / f"{stage}.csv"
        # The history has all metrics of every epoch; here are two short columns for `dvc metrics diff`.
        write_json(metrics, {stage: {"best_epoch": report.best_epoch, "score": round(report.best_metrics["score"], 6)}})
        history.parent.mkdir(parents=True, exist_ok=True)
        table = pd.DataFrame(report.history).round(6)
        table.to_csv(history, index=False)
        curves = history.with_suffix(".png")
        draw_learning_curves({stage: table}, STAGES[stage].partition(",")[0], curves, title=STAGES[stage])
        spent = {
            "seconds": round(report.seconds, 1),
            "seconds_seeing_photos": round(self.seeing_seconds, 1),
            "epochs": len(report.history),
            "views": self.views or len(report.history),
            "images": report.images,
            "images_per_second": round(report.images_per_second, 1),
            "device": device_name(self.accelerator.device),
            "busy_elsewhere": self.other_work.share(),
            "peak_memory_bytes": report.peak_memory_bytes,
            "seconds_saving_state": round(report.saving_seconds, 2),
            "resumed": report.resumed,
            "memory": self.watch.record(),
        }
        write_json(times, spent)
        return [metrics, history, curves, times]

    def _evaluate(self, current: AircraftModel) -> dict[str, float]:
        self._validated = collect_outputs(current, self.validation, self.accelerator)
        metrics = dict(compute_metrics(*self._validated))
        return {"score": validation_score(metrics)} | metrics

    def _keep_best(self, best: AircraftModel, epoch: int, metrics: Mapping[str, float]) -> None:
        rounded = {name: round(value, 6) for name, value in metrics.items()}
        temperatures = fit_temperatures(*self._validated)  # of this epoch, so no other pass is needed
        record = ModelRecord(
            self.architecture, self.classes, self.stage, epoch, rounded, temperatures, self.fit_to_square
        )
        weights = {**self._unlearned, **whole_weights(best)}  # gathered by all processes
        if self.accelerator.is_main_process:
            save_model(self.states.best_model, weights, record)

    def _say_what_would_fit(self) -> str:
        least, free = format_bytes(self.step.count(1)), format_bytes(self.step.available_bytes())
        return (
            f"by count, a step of one image holds {least}, and {free} are free for it; "
            "`aerofuse memory` says what smaller images or another backbone would need"
        )


def _resume_folder() -> Path:
    """Return the folder in the main repository, also where an experiment runs in a temporary copy of it."""
    return Path(os.environ.get("DVC_ROOT", ".")) / RESUME_FOLDER


def _share(phase: PhaseParams, num_processes: int) -> PhaseParams:
    """What one of several processes has to hold."""
    if isinstance(phase.batch_size, str):
        return phase
    return phase.model_copy(update={"batch_size": math.ceil(phase.batch_size / num_processes)})
