"""The training stages as data, and the model that each starts from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aerofuse.backbones.weights import BackboneParams
from aerofuse.common.files import load_into, load_weights
from aerofuse.common.params import load_section, load_value
from aerofuse.data.labels import ClassLists
from aerofuse.models.aircraft_model import AircraftModel
from aerofuse.models.architecture import Architecture, HeadDropoutParams, baseline_architecture, hybrid_architecture
from aerofuse.models.files import load_model


@dataclass(frozen=True)
class Phase:
    """One training stage. `starts_from` is the model folder it continues, `None` for pretrained backbones."""

    stage: str
    model: Literal["single_task", "multi_task", "hybrid"]
    output: str
    trains: tuple[str, ...]
    starts_from: str | None = None


PHASES: dict[str, Phase] = {
    phase.stage: phase
    for phase in (
        Phase("train_single_task", "single_task", "single_task", trains=("cnn", "heads")),
        Phase("train_multi_task", "multi_task", "multi_task", trains=("cnn", "heads")),
        # Heads first on frozen backbones, so that their first wild gradients spoil nothing (LP-FT, arXiv 2202.10054).
        Phase("train_stage_a", "hybrid", "stage_a", trains=("fusion", "heads")),
        Phase(
            "train_stage_b",
            "hybrid",
            "stage_b",
            trains=("transformer", "fusion", "heads"),
            starts_from="stage_a",
        ),
        Phase(
            "train_stage_c",
            "hybrid",
            "hybrid",
            trains=("cnn", "transformer", "fusion", "heads"),
            starts_from="stage_b",
        ),
    )
}


PRETRAINED_FOLDER = Path("models/pretrained")


def start_model(
    phase: Phase, classes: ClassLists, labelled_tasks: tuple[str, ...]
) -> tuple[AircraftModel, Architecture]:
    """Build it, with its architecture: the best model of the phase before, or pretrained backbones and new heads.

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
