"""What the five training stages of the pipeline share: read, build, train, keep the best, write."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader

from aerofuse.checkpointing.budgets import format_bytes
from aerofuse.data.dataset import PreparedSplit, Sample, TrainingLoader, make_loader
from aerofuse.data.labels import ClassLists
from aerofuse.data.transforms import make_augmentation
from aerofuse.evaluation.collect import collect_outputs
from aerofuse.evaluation.metrics import compute_metrics, validation_score
from aerofuse.hardware import device_name
from aerofuse.models.architecture import Architecture, baseline_architecture, hybrid_architecture
from aerofuse.models.package import ModelRecord, load_model, read_record, save_model, write_record
from aerofuse.models.parts import AircraftModel
from aerofuse.params.loading import load_section, load_value
from aerofuse.params.models import BackboneParams, HeadDropoutParams
from aerofuse.params.tracking import TrackingParams
from aerofuse.params.training import AUTO, PhaseParams, TrainingParams
from aerofuse.reporting.learning_curves import draw_learning_curves
from aerofuse.tracking.tracker import Tracker, track_run
from aerofuse.training.calibrating import calibrate
from aerofuse.training.fitting import fit_training
from aerofuse.training.loop import Hooks, train
from aerofuse.training.memory_watch import MemoryWatch
from aerofuse.training.phases import PHASES, Phase
from aerofuse.training.report import TrainingReport
from aerofuse.training.sharding import whole_weights
from aerofuse.training.state_folder import StateFolder
from aerofuse.training.state_key import find_training_key
from aerofuse.training.step_memory import StepMemory
from aerofuse.weight_files import load_into, load_weights

logger = logging.getLogger(__name__)

PREPARED_FOLDER = Path("data/prepared")
PRETRAINED_FOLDER = Path("models/pretrained")
# In the main repository, also where an experiment runs in a temporary copy of it.
RESUME_FOLDER = Path(".resume")


def train_stage(stage: str) -> TrainingReport:
    """Run the training stage named `stage` from the root of the repository and write all its outputs.

    The model folder `models/<output>`, `metrics/train/<stage>.json`, `plots/history/<stage>.csv` and `.png`, and
    `reports/times/<stage>.json`. A training that was stopped, by whatever, goes on where it was: see `StateFolder`.
    """
    phase = PHASES[stage]
    phase_params = load_section(PhaseParams, f"recipes.{{recipe}}.{stage}")
    params = load_section(TrainingParams, "recipes.{recipe}.training")
    seed = load_value(int, "seed")
    set_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    classes = ClassLists.load(PREPARED_FOLDER)
    splits = _open_splits(classes, params, seed)
    model, architecture = _start_model(phase, classes, splits[0].labelled_tasks)
    model.train_only(phase.trains)
    accelerator = Accelerator(mixed_precision=params.mixed_precision)
    model.to(accelerator.device)  # where its steps are counted and planned for
    step = StepMemory(model, architecture.image_size_px, params, phase_params.accumulation_steps)
    fit = fit_training(
        step, len(splits[0]), _share(phase_params, accelerator.num_processes), params, accelerator.num_processes
    )
    watch = MemoryWatch(step, fit, min(params.largest_batch_size, len(splits[0])))
    batch_size = fit.batch_size if phase_params.batch_size == AUTO else int(phase_params.batch_size)
    loader, validation = _make_loaders(splits, batch_size, fit.validation_batch_size, params, seed, accelerator)
    validation = accelerator.prepare(validation)
    states = _open_states(stage, batch_size, accelerator.num_processes)

    def evaluate(current: AircraftModel) -> dict[str, float]:
        metrics = dict(compute_metrics(*collect_outputs(current, validation, accelerator)))
        return {"score": validation_score(metrics)} | metrics

    def keep_best(epoch: int, metrics: Mapping[str, float]) -> None:
        record = ModelRecord(architecture, classes, stage, epoch, _rounded(metrics))
        weights = whole_weights(model)
        if accelerator.is_main_process:
            save_model(states.best_model, weights, record)

    with _writing_alone(stage, states, accelerator) as tracker:
        tracker.log_params(
            {
                "seed": seed,
                "architecture": vars(architecture),
                stage: phase_params.model_dump(),
                "training": params.model_dump(),
            }
        )
        watch.announce(tracker)

        def log_epoch(epoch: int, metrics: Mapping[str, float]) -> None:
            tracker.log_metrics({**metrics, **watch.metrics()}, epoch)

        # From here on every process draws numbers of its own for dropout; all have the same model.
        set_seed(seed, device_specific=True)
        hooks = Hooks(evaluate, log_epoch, keep_best, watch.meter, partial(_say_what_would_fit, step))
        report = train(model, loader, phase_params, params, accelerator, hooks, states)
        temperatures = calibrate(states.best_model, validation, accelerator)
        if accelerator.is_main_process:
            output = Path("models") / phase.output
            shutil.copytree(states.best_model, output, dirs_exist_ok=True)
            write_record(output, replace(read_record(output), temperatures=temperatures))
            for path in _write_reports(stage, report, phase_params, device_name(accelerator.device), watch.record()):
                tracker.log_artifact(path)
            states.end()
    accelerator.end_training()
    return report


def _share(phase: PhaseParams, num_processes: int) -> PhaseParams:
    """What one of several processes has to hold."""
    if isinstance(phase.batch_size, str):
        return phase
    return phase.model_copy(update={"batch_size": math.ceil(phase.batch_size / num_processes)})


@contextmanager
def _writing_alone(stage: str, states: StateFolder, accelerator: Accelerator) -> Iterator[Tracker]:
    """The run to log to, and the states locked; of several processes the first does both, and the rest nothing."""
    if not accelerator.is_main_process:
        yield Tracker()
        return
    with states.locked(), track_run(stage, load_section(TrackingParams, "tracking")) as tracker:
        yield tracker


def _open_splits(classes: ClassLists, params: TrainingParams, seed: int) -> tuple[PreparedSplit, PreparedSplit]:
    """Augmented photos to train on, and photos to validate with as they are."""
    augment = make_augmentation(params.augmentation, seed)
    return (
        PreparedSplit(PREPARED_FOLDER / "train.arrow", classes, augment),
        PreparedSplit(PREPARED_FOLDER / "validation.arrow", classes),
    )


def _make_loaders(
    splits: tuple[PreparedSplit, PreparedSplit],
    batch_size: int,
    validation_batch_size: int,
    params: TrainingParams,
    seed: int,
    accelerator: Accelerator,
) -> tuple[TrainingLoader, DataLoader[Sample]]:
    """Training batches in a shuffled order, and validation batches in theirs."""
    train_split, validation_split = splits
    workers = params.num_workers
    return (
        TrainingLoader(
            train_split,
            batch_size=batch_size,
            num_workers=workers,
            seed=seed,
            rank=accelerator.process_index,
            num_processes=accelerator.num_processes,
        ),
        make_loader(validation_split, batch_size=validation_batch_size, num_workers=workers),
    )


def _open_states(stage: str, batch_size: int, num_processes: int) -> StateFolder:
    root = Path(os.environ.get("DVC_ROOT", "."))
    # A batch size that was found on another device makes another training, and so do other parts of a batch.
    key = find_training_key(stage, batch_size=batch_size, num_processes=num_processes)
    states = StateFolder(root / RESUME_FOLDER / stage / key)
    states.path.mkdir(parents=True, exist_ok=True)
    states.forget_others()
    return states


def _say_what_would_fit(step: StepMemory) -> str:
    least = step.count(1)
    return (
        f"by count, a step of one image holds {format_bytes(least)}, and {format_bytes(step.available_bytes())} "
        "are free for it; `aerofuse memory` says what smaller images or another backbone would need"
    )


def _start_model(
    phase: Phase, classes: ClassLists, labelled_tasks: tuple[str, ...]
) -> tuple[AircraftModel, Architecture]:
    """The model that a phase starts from: the best of the phase before, or pretrained backbones and new heads.

    A task without any label to learn from gets no head: it would answer at random.
    """
    if phase.starts_from is not None:
        model, record = load_model(Path("models") / phase.starts_from)
        return model, record.architecture
    backbones = load_section(BackboneParams, "recipes.{recipe}.backbones")
    dropout = load_section(HeadDropoutParams, "recipes.{recipe}.head_dropout")
    image_size_px = load_value(int, "recipes.{recipe}.image_size")
    if phase.model == "hybrid":
        architecture = hybrid_architecture(
            backbones.cnn,
            backbones.transformer,
            load_value(str, "fusion_method"),
            dropout.hybrid,
            backbones.drop_path,
            image_size_px,
            labelled_tasks,
        )
    else:
        tasks = labelled_tasks if phase.model == "multi_task" else ("type",)
        architecture = baseline_architecture(
            backbones.cnn, tasks, getattr(dropout, phase.model), backbones.drop_path, image_size_px
        )
    model = architecture.build(classes)
    for branch, backbone in model.backbones().items():
        path = PRETRAINED_FOLDER / f"{branch}.safetensors"
        load_into(backbone.model, load_weights(path), str(path))
    return model, architecture


def _write_reports(
    stage: str, report: TrainingReport, phase: PhaseParams, device: str, memory: Mapping[str, object]
) -> list[Path]:
    """Write the metrics of the best epoch, the history as a table and a picture, and times and memory."""
    metrics = Path("metrics/train") / f"{stage}.json"
    history = Path("plots/history") / f"{stage}.csv"
    times = Path("reports/times") / f"{stage}.json"
    for path in (metrics, history, times):
        path.parent.mkdir(parents=True, exist_ok=True)
    # All metrics of every epoch are in the history; here, two short columns for `dvc metrics diff`.
    best = {"best_epoch": report.best_epoch, "score": round(report.best_metrics["score"], 6)}
    metrics.write_text(json.dumps({stage: best}, indent=2) + "\n")
    table = pd.DataFrame(report.history).round(6)
    table.to_csv(history, index=False)
    curves = history.with_suffix(".png")
    draw_learning_curves({stage: table}, stage, curves)
    spent = {
        "seconds": round(report.seconds, 1),
        "epochs": phase.epochs,
        "images": report.images,
        "images_per_second": round(report.images_per_second, 1),
        "device": device,
        "peak_memory_bytes": report.peak_memory_bytes,
        "seconds_saving_state": round(report.saving_seconds, 2),
        "resumed": report.resumed,
        "memory": memory,
    }
    times.write_text(json.dumps(spent, indent=2) + "\n")
    return [metrics, history, curves, times]


def _rounded(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in metrics.items()}
