"""The training stages as data, and the model that each of them starts from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aerofuse.backbones.weights import BackboneParams
from aerofuse.common.files import load_into, load_weights
from aerofuse.common.params import load_section, load_value
from aerofuse.data.labels import ClassLists
from aerofuse.models.aircraft_model import AircraftModel
from aerofuse.models.architecture import Architecture
from aerofuse.models.files import load_model
from aerofuse.training.params import HeadDropoutParams, TrainingParams


@dataclass(frozen=True)
class TrainingPhase:
    """One training stage. `starts_from` is the model folder that it continues, `None` for pretrained backbones."""

    stage: str
    model: Literal["single_task", "multi_task", "hybrid"]
    output: str
    trains: tuple[str, ...]
    starts_from: str | None = None

    @property
    def freezes_backbones(self) -> bool:
        """Return whether no backbone learns."""
        return not {"cnn", "transformer"} & set(self.trains)

    def start_files(self) -> list[Path]:
        """Return the files and folders with the weights that the phase starts from."""
        if self.starts_from is not None:
            return [Path("models") / self.starts_from]
        branches = ("cnn", "transformer") if self.model == "hybrid" else ("cnn",)
        return [PRETRAINED_FOLDER / f"{branch}.safetensors" for branch in branches]


PRETRAINED_FOLDER = Path("models/pretrained")
PHASES = {
    phase.stage: phase
    for phase in (
        TrainingPhase("train_single_task", "single_task", "single_task", ("cnn", "heads")),
        TrainingPhase("train_multi_task", "multi_task", "multi_task", ("cnn", "heads")),
        # New heads have large gradients, which would damage pretrained backbones: heads come first, on frozen backbones
        # (LP-FT, arXiv 2202.10054).
        TrainingPhase("train_stage_a", "hybrid", "stage_a", ("fusion", "heads")),
        TrainingPhase("train_stage_b", "hybrid", "stage_b", ("transformer", "fusion", "heads"), "stage_a"),
        TrainingPhase("train_stage_c", "hybrid", "hybrid", ("cnn", "transformer", "fusion", "heads"), "stage_b"),
    )
}


def start_model(
    phase: TrainingPhase, classes: ClassLists, labelled_tasks: tuple[str, ...]
) -> tuple[AircraftModel, Architecture]:
    """Return the model that a phase starts from, and its architecture.

    It is the best model of the phase before, or has pretrained backbones and new heads. A task without any label gets
    no head, because its answers would be random.
    """
    if phase.starts_from is not None:
        model, record = load_model(Path("models") / phase.starts_from)
        return model, record.architecture
    backbones = load_section(BackboneParams, "recipes.{recipe}.backbones")
    is_hybrid = phase.model == "hybrid"
    architecture = Architecture(
        cnn=backbones.cnn,
        transformer=backbones.transformer if is_hybrid else None,
        fusion_method=load_value(str, "fusion_method") if is_hybrid else None,
        tasks=("type",) if phase.model == "single_task" else labelled_tasks,
        head_dropout=getattr(load_section(HeadDropoutParams, "recipes.{recipe}.head_dropout"), phase.model),
        drop_path=backbones.drop_path,
        image_size_px=load_value(int, "recipes.{recipe}.image_size"),
        sees_mirrored=load_section(TrainingParams, "recipes.{recipe}.training").mirrored_evaluation,
    )
    model = architecture.build(classes)
    for branch, backbone in model.backbones().items():
        path = PRETRAINED_FOLDER / f"{branch}.safetensors"
        load_into(backbone.model, load_weights(path), str(path))
    return model, architecture
