"""Untrained models in folders, as training stages and the stage `package` leave them."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import torch

from aerofuse.data.labels import TASKS, ClassLists
from aerofuse.data.photo import Fit
from aerofuse.inference.package import PackageRecord, Preprocessing, write_package
from aerofuse.inference.unfamiliarity import Unfamiliarity, fit_unfamiliarity
from aerofuse.models.architecture import Architecture, hybrid_architecture
from aerofuse.models.files import ModelRecord, load_model, save_model
from aerofuse.models.fusion import FusionMethod
from tests.models.architectures import baseline_architecture

ARCHITECTURES: dict[str, Architecture] = {
    "single_task": baseline_architecture("convnext_thin", ("type",), 0.1, 0.0, 96),
    "multi_task": baseline_architecture("convnext_thin", TASKS, 0.1, 0.0, 96),
    **{
        method: hybrid_architecture("convnext_thin", "swin_thin", method, 0.1, 0.0, 96)
        for method in get_args(FusionMethod)
    },
}
CLASSES = ClassLists(("A320", "A380", "B737", "B747", "B777", "C-130"), ("Ærø Air", "B"))
TEMPERATURES = {"type": 0.5, "airline": 2.0}


def write_model(
    folder: Path, name: str, classes: ClassLists = CLASSES, *, confident: bool = False, fit: Fit = "letterbox"
) -> Path:
    """What the training stage of a model writes. A `confident` one has answers far apart, as trained ones have."""
    architecture = ARCHITECTURES[name]
    torch.manual_seed(0)
    model = architecture.build(classes)
    if confident:
        with torch.no_grad():
            for task in set(TEMPERATURES) & set(architecture.tasks):
                for parameter in model.parts()["heads"].get_submodule(f"{task}_head").parameters():
                    parameter.mul_(20)
    temperatures = {task: value for task, value in TEMPERATURES.items() if task in architecture.tasks}
    record = ModelRecord(architecture, classes, "train_stage_c", 3, {"score": 0.5}, temperatures, fit)
    save_model(folder, model.state_dict(), record)
    return folder


def measured(trained: Path) -> Unfamiliarity:
    """Statistics of noise, so that every photo is unfamiliar."""
    model, record = load_model(trained)
    noise = torch.randn(96, model.num_features, generator=torch.Generator().manual_seed(0))
    return fit_unfamiliarity(noise, torch.arange(96) % len(record.classes.types), noise[:40])


def write_small_package(folder: Path, name: str, classes: ClassLists = CLASSES) -> Path:
    """What the stage `package` makes of it, but for the photos of the statistics: they are noise."""
    trained = write_model(folder.with_name(f"{folder.name}_trained"), name, classes)
    tests = {"type_labelled": 10, "type_top1": 0.5}
    package = PackageRecord(Preprocessing(96), tests, {"aerofuse": "0.1.0"}, "Apache-2.0")
    write_package(folder, trained, package, "# A model\n", measured(trained))
    return folder
