"""The model that a phase starts from."""

from __future__ import annotations

from pathlib import Path

from aerofuse.backbones.params import BackboneParams, HeadDropoutParams
from aerofuse.common.params import load_section, load_value
from aerofuse.common.weight_files import load_into, load_weights
from aerofuse.data.labels import ClassLists
from aerofuse.models.aircraft_model import AircraftModel
from aerofuse.models.architecture import Architecture, baseline_architecture, hybrid_architecture
from aerofuse.models.files import load_model
from aerofuse.training.phases import Phase

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
