"""How the bundled weights are made: `make pretrain`.

Each thin backbone learns to name drawn types and liveries that the built-in data does not hold, to say the shape of the
type in numbers, and to judge clarity and block, all at once. Then the heads are thrown away. A lesson goes on where it
was stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Self

import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from pydantic import Field, model_validator
from torch import Tensor, nn
from tqdm.auto import tqdm

from aerofuse.backbones.backbone import THIN_BACKBONES, Backbone, create_backbone
from aerofuse.backbones.weights import BUNDLED_FOLDER, file_sha256
from aerofuse.common.files import load_into, load_weights, save_weights, write_atomically
from aerofuse.common.params import Section, read_params_file, validate
from aerofuse.data.dataset import Augmentation, PreparedSplit, TrainingLoader, make_loader
from aerofuse.data.labels import TASKS, ClassLists
from aerofuse.data.store import write_photos
from aerofuse.data.transforms import make_augmentation
from aerofuse.metrics.collect import collect_outputs
from aerofuse.metrics.metrics import compute_metrics, validation_score
from aerofuse.models.aircraft_model import AircraftModel
from aerofuse.models.architecture import BaselineModel
from aerofuse.models.heads import Heads
from aerofuse.synthetic.fleet import Fleet
from aerofuse.synthetic.params import SyntheticParams
from aerofuse.synthetic.photos import draw_photos, photo_airframe
from aerofuse.training.loop import Hooks, train
from aerofuse.training.params import PhaseParams, TaskWeights, TrainingParams
from aerofuse.training.state import TrainingReport
from aerofuse.training.state_folder import StateFolder
from tools.random_fleet import random_fleet
from tools.type_shape import type_shapes

logger = logging.getLogger(__name__)

RECIPE_FILE = BUNDLED_FOLDER / "pretraining.yaml"
WORK_FOLDER = Path(".pretraining")


class FleetParams(Section):
    """The airframes and liveries of the pretext task."""

    num_types: int = Field(ge=2)
    num_airlines: int = Field(ge=2)
    num_airframes: int = Field(ge=4)


class PhotosParams(Section):
    """A set of photos that lessons use."""

    fleet: str = Field(description="the name of a fleet")
    seed: int = Field(ge=0, description="of its own for each set of a fleet, so that no set shows a photo of another")
    synthetic: SyntheticParams
    num_validation_images: int = Field(ge=1)


class PretextWeights(TaskWeights):
    """Weights of the losses, that of the type's shape among them."""

    shape: float = Field(default=0.0, ge=0)


class LessonParams(Section):
    """One lesson: which photos are studied, for how long and for what. Lessons follow each other."""

    photos: str = Field(description="the name of a set of photos")
    epochs: dict[str, Annotated[int, Field(ge=1)]] = Field(description="per backbone; one not named skips the lesson")
    task_weights: PretextWeights
    learning_rate: float = Field(gt=0, le=1)
    batch_size: int = Field(ge=1)


class PretrainingParams(Section):
    """What `data/weights/pretraining.yaml` may say."""

    seed: int = Field(ge=0)
    image_size: int = Field(ge=32)
    num_threads: int = Field(ge=1)
    drop_path: float = Field(ge=0, lt=1)
    fleets: dict[str, FleetParams] = Field(min_length=1)
    training: TrainingParams
    photos: dict[str, PhotosParams] = Field(min_length=1)
    lessons: dict[str, LessonParams] = Field(min_length=1)

    @model_validator(mode="after")
    def _lessons_have_photos_and_photos_a_fleet(self) -> Self:
        for name, lesson in self.lessons.items():
            if lesson.photos not in self.photos:
                raise ValueError(f"lesson {name!r} wants photos {lesson.photos!r}; there are {', '.join(self.photos)}")
        for name, photos in self.photos.items():
            if photos.fleet not in self.fleets:
                raise ValueError(f"photos {name!r} want fleet {photos.fleet!r}; there are {', '.join(self.fleets)}")
        return self


def load_recipe(path: Path = RECIPE_FILE) -> PretrainingParams:
    """The recipe of the bundled weights. Raises `ValueError` naming what cannot be used."""
    return validate(PretrainingParams, read_params_file(path), str(path))


def draw(params: PretrainingParams, folder: Path, processes: int, names: Collection[str]) -> None:
    """Draw the named sets of photos to `<folder>/photos/<set>/train.arrow` and `validation.arrow`.

    Raises `ValueError` for a set that the recipe does not have.
    """
    unknown = sorted(set(names) - set(params.photos))
    if unknown:
        raise ValueError(f"no photos {', '.join(unknown)}; the recipe has {', '.join(params.photos)}")
    for name in names:
        photos_params = params.photos[name]
        fleet, seed = _fleet(params, name), photos_params.seed
        classes = ClassLists(
            tuple(sorted(kind.name for kind in fleet.types)), tuple(sorted(livery.name for livery in fleet.liveries))
        )
        output = folder / "photos" / name
        output.mkdir(parents=True, exist_ok=True)
        classes.save(output)
        total = photos_params.synthetic.num_images
        first_validation = total - photos_params.num_validation_images
        for split, rows in (("train", range(first_validation)), ("validation", range(first_validation, total))):
            # One airframe after the other: its shape and its paint are made once.
            registrations = {index: photo_airframe(fleet, index, seed).registration for index in rows}
            order = sorted(rows, key=registrations.__getitem__)
            photos = draw_photos(fleet, order, photos_params.synthetic, params.image_size, seed, processes)
            write_photos(output / f"{split}.arrow", tqdm(photos, f"{name} {split}", len(rows), disable=None))


def _fleet(params: PretrainingParams, photos: str) -> Fleet:
    return random_fleet(**params.fleets[params.photos[photos].fleet].model_dump(), seed=params.seed)


class PretextSplit(PreparedSplit):
    """Photos whose targets also hold the `shape` of the type, `[measures]`."""

    def __init__(self, path: Path, classes: ClassLists, fleet: Fleet, augment: Augmentation | None = None) -> None:
        super().__init__(path, classes, augment)
        shapes = torch.from_numpy(type_shapes(fleet.types)).float()
        of_type = dict(zip((one.name for one in fleet.types), shapes, strict=True))
        for name, targets in zip(self.labels["typename"], self._targets, strict=True):
            targets["shape"] = of_type[name]
        self._no_targets["shape"] = torch.full_like(shapes[0], torch.nan)
        self.num_measures = len(shapes[0])


class PretextModel(BaselineModel):
    """A backbone with the four heads and one for the shape of the type."""

    def __init__(self, cnn: nn.Module, num_features: int, classes: ClassLists, num_measures: int) -> None:
        super().__init__(cnn, Heads(num_features, classes, TASKS, dropout=0.0))
        self.shape_head = nn.Linear(num_features, num_measures)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the outputs of the heads for uint8 images `[B, 3, H, W]`, and `shape`, `[B, measures]`."""
        features = self.get_features(images)
        outputs: dict[str, Tensor] = self.heads(features)
        return outputs | {"shape": self.shape_head(features)}


class PretextBackbone(nn.Sequential):
    """A backbone whose features are standardised over the batch before the pretext's heads.

    The pooled features of a fresh network are nearly the same for every photo. Standardising makes what differs
    visible to the heads from the first step, without which nothing is learned for the first ten thousand photos.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone, nn.BatchNorm1d(backbone.num_features, affine=False))


def pretrain(name: str, params: PretrainingParams, folder: Path, output: Path, first_lesson: str | None = None) -> None:
    """Train backbone `name` through the lessons; write it, in half precision, to `output`.

    Each lesson starts from the file that the one before wrote, with new heads; so `first_lesson` continues where
    an interrupted pretraining stopped, to the same result. Photos that are not there yet are drawn, by one process.
    Raises `ValueError` for an unknown lesson.
    """
    lessons = [lesson for lesson, its in params.lessons.items() if name in its.epochs]
    if first_lesson is not None and first_lesson not in lessons:
        raise ValueError(f"no lesson {first_lesson!r}; there are {', '.join(lessons)}")
    torch.set_num_threads(params.num_threads)
    output.mkdir(parents=True, exist_ok=True)
    start = lessons.index(first_lesson) if first_lesson else 0
    for lesson in lessons[start:]:
        photos = params.lessons[lesson].photos
        if not (folder / "photos" / photos / "validation.arrow").is_file():
            draw(params, folder, 1, [photos])
        logger.info("%s: lesson %s", name, lesson)
        set_seed(params.seed)
        backbone = create_backbone(name, image_size_px=params.image_size, drop_path=params.drop_path)
        if lesson != lessons[0]:
            before = folder / lessons[lessons.index(lesson) - 1] / f"{name}.safetensors"
            load_into(backbone.model, {key: value.float() for key, value in load_weights(before).items()}, str(before))
        states = StateFolder(folder / lesson / f"{name}-{_key(name, params, lesson, backbone)}")
        report = _teach(backbone, name, params.lessons[lesson], params, folder / "photos", states)
        # The last epoch is taken, at the end of the cosine: nothing here is held out to choose by.
        state = {key: value.half() for key, value in backbone.model.state_dict().items()}
        (folder / lesson).mkdir(parents=True, exist_ok=True)
        save_weights(folder / lesson / f"{name}.safetensors", state)
        pd.DataFrame(report.history).round(4).to_csv(folder / lesson / f"{name}.csv", index=False)
    _publish(name, params, folder, output)


def _key(name: str, params: PretrainingParams, lesson: str, backbone: Backbone) -> str:
    """Return a key that differs for lessons that do not continue each other's states."""
    settings = params.model_dump(mode="json", exclude={"lessons"}) | params.lessons[lesson].model_dump(mode="json")
    digest = hashlib.sha256(json.dumps([name, lesson, settings], sort_keys=True).encode())
    for value in backbone.state_dict().values():
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()[:16]


def revision(name: str, params: PretrainingParams) -> str:
    """Return a digest of all that the recipe says about one backbone: its lessons, their photos and fleets."""
    lessons = {lesson: its for lesson, its in params.lessons.items() if name in its.epochs}
    photos = {lesson: params.photos[its.photos] for lesson, its in lessons.items()}
    fleets = {lesson: params.fleets[its.fleet] for lesson, its in photos.items()}
    shared = params.model_dump(mode="json", exclude={"lessons", "photos", "fleets"})
    parts = [{key: its.model_dump(mode="json") for key, its in part.items()} for part in (lessons, photos, fleets)]
    for lesson in parts[0].values():
        lesson["epochs"] = lesson["epochs"][name]
    return hashlib.sha256(json.dumps([name, shared, *parts], sort_keys=True).encode()).hexdigest()


def _publish(name: str, params: PretrainingParams, folder: Path, output: Path) -> None:
    """Write the weights of the last lesson, the history of all lessons, and a record, to `output`."""
    lessons = [lesson for lesson, its in params.lessons.items() if name in its.epochs]
    histories = {lesson: pd.read_csv(folder / lesson / f"{name}.csv") for lesson in lessons}
    history = pd.concat(histories, names=["lesson", "row"]).reset_index("lesson")
    history.to_csv(output / f"{name}.history.csv", index=False)
    save_weights(output / f"{name}.safetensors", load_weights(folder / lessons[-1] / f"{name}.safetensors"))
    record = {
        "backbone": name,
        "made_by": "make pretrain",
        "revision": revision(name, params),
        "licence": "Apache-2.0",
        "sha256": file_sha256(output / f"{name}.safetensors"),
        "pretext_validation": history.drop(columns=["lesson", "epoch"]).astype(float).iloc[-1].to_dict(),
    }
    write_atomically(output / f"{name}.json", (json.dumps(record, indent=2) + "\n").encode())


def _teach(
    backbone: Backbone, name: str, lesson: LessonParams, params: PretrainingParams, photos: Path, states: StateFolder
) -> TrainingReport:
    """Train the backbone, under new heads, on the photos of one lesson, from the last state where there is one."""
    folder = photos / lesson.photos
    classes, fleet = ClassLists.load(folder), _fleet(params, lesson.photos)
    accelerator = Accelerator(mixed_precision=params.training.mixed_precision)
    augment = make_augmentation(params.training.augmentation, params.seed)
    workers = params.training.num_workers
    photos_to_learn = PretextSplit(folder / "train.arrow", classes, fleet, augment)
    loader = TrainingLoader(photos_to_learn, batch_size=lesson.batch_size, num_workers=workers, seed=params.seed)
    photos_to_judge = PretextSplit(folder / "validation.arrow", classes, fleet)
    validation = accelerator.prepare(make_loader(photos_to_judge, batch_size=lesson.batch_size, num_workers=workers))
    model = PretextModel(PretextBackbone(backbone), backbone.num_features, classes, photos_to_learn.num_measures)

    def evaluate(current: AircraftModel) -> dict[str, float]:
        outputs, targets = collect_outputs(current, validation, accelerator)
        shape_error = nn.functional.l1_loss(outputs.pop("shape"), targets.pop("shape"))
        metrics = dict(compute_metrics(outputs, targets))
        return metrics | {"shape_mae": float(shape_error), "score": validation_score(metrics)}

    phase = PhaseParams(
        epochs=lesson.epochs[name],
        learning_rate=lesson.learning_rate,
        batch_size=lesson.batch_size,
        accumulation_steps=1,
    )
    hooks = Hooks(evaluate, on_epoch=lambda *_: None, on_best=lambda *_: None)
    training = params.training.model_copy(update={"task_weights": lesson.task_weights})
    states.path.mkdir(parents=True, exist_ok=True)
    with states.locked():
        return train(model, loader, phase, training, accelerator, hooks, states)


def main() -> None:
    """Draw photos, or train one backbone."""
    parser = argparse.ArgumentParser(prog="python -m tools.pretraining", description=__doc__)
    parser.add_argument("step", choices=("draw", *THIN_BACKBONES))
    parser.add_argument("--from", dest="first_lesson", help="continue an interrupted pretraining from this lesson")
    parser.add_argument("--photos", nargs="+", help="sets of photos to draw (default: all)")
    parser.add_argument("--processes", type=int, default=2, help="processes that draw (default: 2)")
    parser.add_argument("--output", type=Path, default=BUNDLED_FOLDER, help="where the weights go")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    params = load_recipe()
    if options.step == "draw":
        draw(params, WORK_FOLDER, options.processes, options.photos or list(params.photos))
    else:
        pretrain(options.step, params, WORK_FOLDER, options.output, options.first_lesson)


if __name__ == "__main__":
    main()
