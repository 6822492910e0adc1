"""How the bundled weights are made: `make pretrain`.

Each thin backbone learns to name drawn types and liveries that the built-in data does not hold, to say the shape of the
type in numbers, and to judge clarity and block, all at once. Then the heads are thrown away. A lesson goes on where it
was stopped, and starts from the weights that the one before ended with: those of this machine, or the bundled ones.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Self

import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from pydantic import Field, model_validator
from torch import nn
from tqdm.auto import tqdm

from aerofuse.backbones.backbone import THIN_BACKBONES, Backbone, create_backbone
from aerofuse.backbones.weights import BUNDLED_FOLDER, file_sha256
from aerofuse.common.files import load_into, load_weights, save_weights, write_atomically
from aerofuse.common.params import Section, read_params_file, validate
from aerofuse.data.dataset import TrainingLoader, make_loader
from aerofuse.data.labels import ClassLists
from aerofuse.data.store import write_photos
from aerofuse.data.transforms import make_augmentation
from aerofuse.metrics.collect import collect_outputs
from aerofuse.metrics.metrics import compute_metrics, validation_score
from aerofuse.models.aircraft_model import AircraftModel
from aerofuse.synthetic.fleet import Fleet
from aerofuse.synthetic.params import SyntheticParams
from aerofuse.synthetic.photos import draw_photos, photo_airframe
from aerofuse.training.loop import Hooks, train
from aerofuse.training.params import PhaseParams, TaskWeights, TrainingParams
from aerofuse.training.state import TrainingReport
from aerofuse.training.state_folder import StateFolder
from tools.pretext import PretextModel, PretextSplit, Teacher
from tools.random_fleet import random_fleet

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
    """Weights of the losses, those of the type's shape and of what a teacher sees among them."""

    shape: float = Field(default=0.0, ge=0)
    features: float = Field(default=0.0, ge=0, description="pooled features like the teacher's")
    maps: float = Field(default=0.0, ge=0, description="maps of the stages like the teacher's")


class TeacherParams(Section):
    """Another backbone that shows a lesson's backbone what to see, with the weights that one of its lessons gave it."""

    backbone: str
    lesson: str


class LessonParams(Section):
    """One lesson: which photos are studied, for how long and for what. Lessons follow each other."""

    photos: str = Field(description="the name of a set of photos")
    epochs: dict[str, Annotated[int, Field(ge=1)]] = Field(description="per backbone; one not named skips the lesson")
    teacher: TeacherParams | None = None
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
            teacher = lesson.teacher
            if teacher and teacher.backbone not in self.lessons.get(teacher.lesson, lesson).epochs:
                raise ValueError(f"lesson {name!r}: {teacher.backbone} does not take lesson {teacher.lesson!r}")
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


def pretrain(name: str, params: PretrainingParams, folder: Path, output: Path, first_lesson: str | None = None) -> None:
    """Train backbone `name` through the lessons; write it, in half precision, to `output`.

    Each lesson starts from the weights that the one before ended with, with new heads; so `first_lesson` continues
    where an interrupted pretraining stopped, to the same result. Photos that are not there yet are drawn, by one
    process. Raises `ValueError` for an unknown lesson, and `FileNotFoundError` where the weights of the lesson before,
    or those of a teacher, are neither in `folder` nor the bundled ones.
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
            _load_after(lessons[lessons.index(lesson) - 1], backbone, folder)
        states = StateFolder(folder / lesson / f"{name}-{_key(name, params, lesson, backbone)}")
        report = _teach(backbone, params.lessons[lesson], params, folder, states)
        # The last epoch is taken, at the end of the cosine: nothing here is held out to choose by.
        state = {key: value.half() for key, value in backbone.model.state_dict().items()}
        (folder / lesson).mkdir(parents=True, exist_ok=True)
        save_weights(folder / lesson / f"{name}.safetensors", state)
        pd.DataFrame(report.history).round(4).to_csv(folder / lesson / f"{name}.csv", index=False)
    _publish(name, params, folder, output)


def _load_after(lesson: str, backbone: Backbone, folder: Path) -> None:
    """Load the weights that a backbone had after a lesson: those of this machine, or the bundled ones."""
    name = backbone.variant
    path = folder / lesson / f"{name}.safetensors"
    if not path.is_file():
        path = BUNDLED_FOLDER / path.name
        if (last := _bundled_history(name)["lesson"].iloc[-1]) != lesson:
            raise FileNotFoundError(
                f"no weights of {name} after lesson {lesson!r}: {folder / lesson} has none, and the bundled ones are "
                f"those after {last!r}; begin with an earlier lesson of {name}"
            )
    load_into(backbone.model, {key: value.float() for key, value in load_weights(path).items()}, str(path))


def _bundled_history(name: str) -> pd.DataFrame:
    return pd.read_csv(BUNDLED_FOLDER / f"{name}.history.csv", dtype={"lesson": str})


def _key(name: str, params: PretrainingParams, lesson: str, backbone: Backbone) -> str:
    """Return a key that differs for lessons that do not continue each other's states."""
    digest = hashlib.sha256(_digest([name, *_what_is_said(name, params, [lesson])]).encode())
    for value in backbone.state_dict().values():
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()[:16]


def revision(name: str, params: PretrainingParams) -> str:
    """Return a digest of all that the recipe says about one backbone: its lessons, their photos and fleets."""
    return _digest(
        [name, *_what_is_said(name, params, [one for one, its in params.lessons.items() if name in its.epochs])]
    )


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _what_is_said(name: str, params: PretrainingParams, lessons: Iterable[str]) -> Iterator[object]:
    """Yield what the recipe says about lessons of one backbone, without what is the default.

    So a new setting that these lessons do not use changes nothing.
    """
    options: dict[str, Any] = {"mode": "json", "exclude_defaults": True}
    yield params.model_dump(exclude={"lessons", "photos", "fleets"}, **options)
    for lesson in lessons:
        its = params.lessons[lesson]
        photos = params.photos[its.photos]
        yield its.model_dump(**options) | {"epochs": its.epochs[name]}
        yield photos.model_dump(**options)
        yield params.fleets[photos.fleet].model_dump(**options)


def _publish(name: str, params: PretrainingParams, folder: Path, output: Path) -> None:
    """Write the weights of the last lesson, the history of all lessons, and a record, to `output`."""
    lessons = [lesson for lesson, its in params.lessons.items() if name in its.epochs]
    files = {lesson: folder / lesson / f"{name}.csv" for lesson in lessons}
    bundled = dict(list(_bundled_history(name).groupby("lesson")))
    # Of a lesson that another machine saw, there is what it wrote.
    histories = [
        pd.read_csv(path).assign(lesson=lesson) if path.is_file() else bundled[lesson] for lesson, path in files.items()
    ]
    history = pd.concat(histories)
    history.insert(0, "lesson", history.pop("lesson"))
    history.to_csv(output / f"{name}.history.csv", index=False)
    save_weights(output / f"{name}.safetensors", load_weights(folder / lessons[-1] / f"{name}.safetensors"))
    record = {
        "backbone": name,
        "made_by": "make pretrain",
        "revision": revision(name, params),
        "licence": "Apache-2.0",
        "sha256": file_sha256(output / f"{name}.safetensors"),
        "pretext_validation": history.drop(columns=["lesson", "epoch"]).iloc[-1].dropna().astype(float).to_dict(),
    }
    write_atomically(output / f"{name}.json", (json.dumps(record, indent=2) + "\n").encode())


def _teach(
    backbone: Backbone, lesson: LessonParams, params: PretrainingParams, work: Path, states: StateFolder
) -> TrainingReport:
    """Train the backbone, under new heads, on the photos of one lesson, from the last state where there is one."""
    folder = work / "photos" / lesson.photos
    classes, fleet = ClassLists.load(folder), _fleet(params, lesson.photos)
    accelerator = Accelerator(mixed_precision=params.training.mixed_precision)
    augment = make_augmentation(params.training.augmentation, params.seed)
    workers = params.training.num_workers
    photos_to_learn = PretextSplit(folder / "train.arrow", classes, fleet, augment)
    loader = TrainingLoader(photos_to_learn, batch_size=lesson.batch_size, num_workers=workers, seed=params.seed)
    photos_to_judge = PretextSplit(folder / "validation.arrow", classes, fleet)
    validation = accelerator.prepare(make_loader(photos_to_judge, batch_size=lesson.batch_size, num_workers=workers))
    teacher = None
    if lesson.teacher is not None:
        example = create_backbone(lesson.teacher.backbone, image_size_px=params.image_size)
        _load_after(lesson.teacher.lesson, example, work)
        teacher = Teacher(example, backbone)
        photos_to_learn.expect_no_errors(teacher.num_errors(params.image_size))
    model = PretextModel(backbone, classes, photos_to_learn.num_measures, teacher)

    def evaluate(current: AircraftModel) -> dict[str, float]:
        outputs, targets = collect_outputs(current, validation, accelerator)
        shape_error = nn.functional.l1_loss(outputs.pop("shape"), targets.pop("shape"))
        metrics = dict(compute_metrics(outputs, targets))
        return metrics | {"shape_mae": float(shape_error), "score": validation_score(metrics)}

    phase = PhaseParams(
        epochs=lesson.epochs[backbone.variant],
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
