"""What the five training stages of the pipeline share: read, build, train, keep the best, write."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader

from aerofuse.checkpointing.budget import format_bytes
from aerofuse.common.files import write_json
from aerofuse.common.hardware import OtherWork, device_name
from aerofuse.common.params import load_section, load_value
from aerofuse.data.dataset import PreparedSplit, Sample, TrainingLoader, make_loader
from aerofuse.data.labels import ClassLists
from aerofuse.data.transforms import make_augmentation
from aerofuse.metrics.calibration import fit_temperatures
from aerofuse.metrics.collect import Batch, collect_outputs
from aerofuse.metrics.metrics import compute_metrics, validation_score
from aerofuse.models.aircraft_model import AircraftModel
from aerofuse.models.files import ModelRecord, load_model, read_record, save_model, write_record
from aerofuse.plotting.learning import draw_learning_curves
from aerofuse.plotting.wording import STAGES
from aerofuse.tracking.tracker import Tracker, TrackingParams, track_run
from aerofuse.training.distributed import whole_weights
from aerofuse.training.fitting import fit_training
from aerofuse.training.loop import Hooks, train
from aerofuse.training.memory_watch import MemoryWatch
from aerofuse.training.params import AUTO, PhaseParams, TrainingParams
from aerofuse.training.phases import PHASES, start_model
from aerofuse.training.state import TrainingReport
from aerofuse.training.state_folder import StateFolder, training_key
from aerofuse.training.step_memory import StepMemory


def calibrate(folder: Path, validation: Iterable[Batch], accelerator: Accelerator) -> dict[str, float]:
    """The temperatures of the model in `folder`, which all processes reach, fitted on the validation split.

    All processes call it, and all get the same. The model is loaded anew, whole and in float32: in memory is that of
    the last epoch, perhaps in shares.
    """
    accelerator.wait_for_everyone()  # one of them writes the folder
    model, _ = load_model(folder)
    return fit_temperatures(*collect_outputs(model.to(accelerator.device), validation, accelerator))


PREPARED_FOLDER = Path("data/prepared")
# In the main repository, also where an experiment runs in a temporary copy of it.
RESUME_FOLDER = Path(".resume")


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
        temperatures = calibrate(training.states.best_model, training.validation, training.accelerator)
        if training.accelerator.is_main_process:
            for path in training.write(report, temperatures):
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
        self.model, self.architecture = start_model(self.phase, self.classes, split.labelled_tasks)
        self.model.train_only(self.phase.trains)
        self.accelerator = Accelerator(mixed_precision=params.mixed_precision)
        self.model.to(self.accelerator.device)  # where its steps are counted and planned for
        processes = self.accelerator.num_processes
        self.step = StepMemory(self.model, self.architecture.image_size_px, params, phase_params.accumulation_steps)
        fit = fit_training(self.step, len(split), _share(phase_params, processes), params, processes)
        self.watch = MemoryWatch(self.step, fit, min(params.largest_batch_size, len(split)))
        batch_size = fit.batch_size if phase_params.batch_size == AUTO else int(phase_params.batch_size)
        self.loader = TrainingLoader(
            split,
            batch_size=batch_size,
            num_workers=params.num_workers,
            seed=seed,
            rank=self.accelerator.process_index,
            num_processes=processes,
        )
        validation = make_loader(
            PreparedSplit(PREPARED_FOLDER / "validation.arrow", self.classes),
            batch_size=fit.validation_batch_size,
            num_workers=params.num_workers,
        )
        self.validation: DataLoader[Sample] = self.accelerator.prepare(validation)
        # A batch size that was found on another device makes another training, and so do other parts of a batch.
        settings = [self.described(), batch_size, processes]
        key = training_key(settings, [PREPARED_FOLDER, *self.phase.start_files()])
        self.states = StateFolder(Path(os.environ.get("DVC_ROOT", ".")) / RESUME_FOLDER / stage / key)
        self.states.path.mkdir(parents=True, exist_ok=True)
        self.states.forget_others()

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
        return train(self.model, self.loader, self.phase_params, self.params, self.accelerator, hooks, self.states)

    def write(self, report: TrainingReport, temperatures: Mapping[str, float]) -> list[Path]:
        """Write the best model with its temperatures, and the records of the training, whose files are returned."""
        output = Path("models") / self.phase.output
        shutil.copytree(self.states.best_model, output, dirs_exist_ok=True)
        write_record(output, replace(read_record(output), temperatures=dict(temperatures)))
        device = device_name(self.accelerator.device)
        busy = self.other_work.share()
        return _write_records(self.stage, report, self.phase_params, device, busy, self.watch.record())

    def _evaluate(self, current: AircraftModel) -> dict[str, float]:
        metrics = dict(compute_metrics(*collect_outputs(current, self.validation, self.accelerator)))
        return {"score": validation_score(metrics)} | metrics

    def _keep_best(self, epoch: int, metrics: Mapping[str, float]) -> None:
        rounded = {name: round(value, 6) for name, value in metrics.items()}
        record = ModelRecord(self.architecture, self.classes, self.stage, epoch, rounded)
        weights = whole_weights(self.model)  # gathered by all processes
        if self.accelerator.is_main_process:
            save_model(self.states.best_model, weights, record)

    def _say_what_would_fit(self) -> str:
        least, free = format_bytes(self.step.count(1)), format_bytes(self.step.available_bytes())
        return (
            f"by count, a step of one image holds {least}, and {free} are free for it; "
            "`aerofuse memory` says what smaller images or another backbone would need"
        )


def _share(phase: PhaseParams, num_processes: int) -> PhaseParams:
    """What one of several processes has to hold."""
    if isinstance(phase.batch_size, str):
        return phase
    return phase.model_copy(update={"batch_size": math.ceil(phase.batch_size / num_processes)})


def _write_records(
    stage: str,
    report: TrainingReport,
    phase: PhaseParams,
    device: str,
    busy_elsewhere: float,
    memory: Mapping[str, object],
) -> list[Path]:
    """Write the best epoch, the history as a table and a picture, and times and memory; return the files."""
    metrics = Path("metrics/train") / f"{stage}.json"
    history = Path("plots/history") / f"{stage}.csv"
    times = Path("reports/times") / f"{stage}.json"
    # The history has all metrics of every epoch; here are two short columns for `dvc metrics diff`.
    write_json(metrics, {stage: {"best_epoch": report.best_epoch, "score": round(report.best_metrics["score"], 6)}})
    history.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(report.history).round(6)
    table.to_csv(history, index=False)
    curves = history.with_suffix(".png")
    draw_learning_curves({stage: table}, STAGES[stage].partition(",")[0], curves, title=STAGES[stage])
    spent = {
        "seconds": round(report.seconds, 1),
        "epochs": phase.epochs,
        "images": report.images,
        "images_per_second": round(report.images_per_second, 1),
        "device": device,
        "busy_elsewhere": busy_elsewhere,
        "peak_memory_bytes": report.peak_memory_bytes,
        "seconds_saving_state": round(report.saving_seconds, 2),
        "resumed": report.resumed,
        "memory": memory,
    }
    write_json(times, spent)
    return [metrics, history, curves, times]
