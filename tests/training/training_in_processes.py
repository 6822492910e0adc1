"""Run by torchrun, or alone: trains without dropout and writes what came of it as JSON."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import torch
from accelerate.utils import gather_object, set_seed
from torch import Tensor, nn

from aerofuse.common.params import load_section
from aerofuse.data.dataset import PreparedSplit, TrainingLoader, make_loader
from aerofuse.data.labels import ClassLists
from aerofuse.data.transforms import make_augmentation
from aerofuse.metrics.calibration import fit_temperatures
from aerofuse.metrics.collect import collect_outputs
from aerofuse.metrics.metrics import compute_metrics
from aerofuse.models.aircraft_model import AircraftModel
from aerofuse.models.architecture import hybrid_architecture
from aerofuse.models.files import ModelRecord, save_model
from aerofuse.training.distributed import make_accelerator, whole_weights
from aerofuse.training.loop import Hooks, train
from aerofuse.training.params import PhaseParams, TrainingParams
from aerofuse.training.state_folder import StateFolder

# Of 96 photos the last batch holds 6, which three processes share evenly and two do, too; 4 do not.
BATCH_SIZE = 15


def main(prepared: Path, output: Path, states: Path, parallelism: str, room: int) -> None:
    torch.set_num_threads(1)
    set_seed(0)
    params = load_section(TrainingParams, "recipes.{recipe}.training")
    params = TrainingParams.model_validate(
        params.model_dump() | {"save_state_every": 3, "parallelism": parallelism, "weight_averaging": 0.9}
    )
    classes = ClassLists.load(prepared)
    # One backbone frozen, one checkpointed: what sharding must not disturb. No dropout: each process draws its own.
    architecture = hybrid_architecture("convnext_thin", "swin_thin", "attention", 0.0, 0.0, 96)
    model = architecture.build(classes)
    model.train_only(("transformer", "fusion", "heads")).enable_gradient_checkpointing()
    accelerator = make_accelerator("no")
    split = PreparedSplit(prepared / "train.arrow", classes, make_augmentation(params.augmentation, 0))
    loader = TrainingLoader(
        split,
        batch_size=BATCH_SIZE,
        num_workers=0,
        seed=0,
        rank=accelerator.process_index,
        num_processes=accelerator.num_processes,
    )
    judged = PreparedSplit(prepared / "validation.arrow", classes)
    validation = accelerator.prepare(make_loader(judged, batch_size=7, num_workers=0))

    def evaluate(current: AircraftModel) -> dict[str, float]:
        outputs, targets = collect_outputs(current, validation, accelerator)
        metrics = dict(compute_metrics(outputs, targets))
        return {**metrics, "score": metrics["type_top1"], "evaluated": float(len(targets["type"]))}

    folder = StateFolder(states)

    def keep_last(epoch: int, _: object) -> None:
        weights = whole_weights(model)
        if accelerator.is_main_process:
            save_model(folder.best_model, weights, ModelRecord(architecture, classes, "", epoch, {}))

    hooks = Hooks(evaluate, keep_last, lambda *_: None)
    if accelerator.process_index == 1:  # the smaller GPU
        model.parts()["heads"].register_forward_pre_hook(partial(_run_out_of_memory, room))
    phase = PhaseParams(epochs=2, learning_rate=1e-3, batch_size=BATCH_SIZE, accumulation_steps=2)
    report = train(model, loader, phase, params, accelerator, hooks, folder)
    temperatures = fit_temperatures(*collect_outputs(model, validation, accelerator))
    everyones = gather_object([temperatures])
    weights = whole_weights(model)
    if accelerator.is_main_process:
        sums = {name: float(value.double().abs().sum()) for name, value in weights.items()}
        found = {
            "processes": accelerator.num_processes,
            "history": report.history,
            "weights": sums,
            "resumed": report.resumed,
            "images": report.images,
            "temperatures": everyones,
        }
        output.write_text(json.dumps(found))
    accelerator.end_training()


def _run_out_of_memory(room: int, heads: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    if heads.training and len(inputs[0]) > room:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
