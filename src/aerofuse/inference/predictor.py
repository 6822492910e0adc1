"""Predict from photos with nothing but a model's folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from aerofuse.data.photo import UnreadablePhotoError
from aerofuse.inference.package import Pixels, as_batch, fit_photo, load_package, read_photo
from aerofuse.inference.unfamiliarity import SCORE, UNFAMILIAR_ABOVE, Unfamiliarity, load_unfamiliarity
from aerofuse.models.aircraft_model import AircraftModel
from aerofuse.models.files import ModelRecord
from aerofuse.models.heads import scale_logits

_BEST = 5


@dataclass(frozen=True)
class Candidate:
    """A class and its confidence in 0..1."""

    name: str
    confidence: float


@dataclass(frozen=True)
class Prediction:
    """A model's answers for one photo; `None` where the model has no such head.

    Confidences are calibrated. `clarity` goes from 0 (blurred) to 1 (sharp), `block` from 0 (fully visible) to 1
    (fully hidden); `quality_score` is clarity * (1 - block). `type_top5` has the five likeliest types, or all types.
    `unfamiliar_score` goes from 0 (typical of the training photos) to 1. `unfamiliar` is true above 0.5, as for 5 % of
    the validation photos. Both are `None` where the model's folder has no statistics of its training photos.
    """

    type: str | None = None
    type_confidence: float | None = None
    type_top5: tuple[Candidate, ...] = ()
    airline: str | None = None
    airline_confidence: float | None = None
    clarity: float | None = None
    block: float | None = None
    quality_score: float | None = None
    unfamiliar_score: float | None = None
    unfamiliar: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the answers as plain values, in this order."""
        return asdict(self) | {"type_top5": [asdict(candidate) for candidate in self.type_top5]}

    def without_names(self) -> Prediction:
        """Return the prediction without type and airline."""
        return replace(self, type=None, type_confidence=None, type_top5=(), airline=None, airline_confidence=None)


@dataclass(frozen=True)
class PhotoResult:
    """A photo file with its prediction, or with the reason why it has none."""

    file: Path
    prediction: Prediction | None = None
    problem: str | None = None


class Predictor:
    """A model with its preprocessing; `aerofuse.load` makes one. `record` is the model's record of its training."""

    def __init__(
        self,
        model: AircraftModel,
        record: ModelRecord,
        device: torch.device,
        unfamiliarity: Unfamiliarity | None = None,
    ) -> None:
        self.record = record
        self.device = device
        self.model = model.to(device).eval()
        self._unfamiliarity = None if unfamiliarity is None else unfamiliarity.to(device)

    @property
    def knows_unfamiliar(self) -> bool:
        """Return whether its predictions say how unfamiliar a photo is."""
        return self._unfamiliarity is not None

    def predict(self, photo: str | PathLike[str] | Pixels) -> Prediction:
        """Predict for one photo: a file, or its pixels as RGB `[H, W, 3]` uint8.

        Raises `UnreadablePhotoError` for a file that is not a photo, and `ValueError` for another kind of array.
        """
        if isinstance(photo, np.ndarray):
            if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or 0 in photo.shape:
                raise ValueError(f"a photo is uint8 [H, W, 3], not {photo.dtype} {list(photo.shape)}")
            pixels = fit_photo(Image.fromarray(photo), self.record)
        else:
            pixels = read_photo(Path(photo), self.record)
        return self.predict_batch(as_batch([pixels]))[0]

    def predict_files(
        self, files: Iterable[str | PathLike[str]], *, batch_size: int = 16, banner_px: int = 0
    ) -> Iterator[PhotoResult]:
        """Predict for photo files, `batch_size` at a time, in order. A file that cannot be used has a `problem`.

        The lowest `banner_px` rows of each photo are cut off; FGVC-Aircraft's copyright banner has 20.
        """
        waiting = (Path(file) for file in files)
        while group := list(islice(waiting, batch_size)):
            images: list[Pixels] = []
            problems: list[str | None] = []
            for file in group:
                try:
                    images.append(read_photo(file, self.record, banner_px=banner_px))
                    problems.append(None)
                except UnreadablePhotoError as error:
                    problems.append(str(error))
            predictions = iter(self.predict_batch(as_batch(images)) if images else ())
            for file, problem in zip(group, problems, strict=True):
                yield PhotoResult(file, next(predictions) if problem is None else None, problem)

    def predict_batch(self, images: Tensor) -> list[Prediction]:
        """Predict for prepared images, uint8 `[B, 3, image_size_px, image_size_px]`.

        Raises `ValueError` for another shape or type, and where the model gives NaN or infinity.
        """
        side_px = self.record.image_size_px
        if images.dtype != torch.uint8 or images.shape[1:] != (3, side_px, side_px):
            raise ValueError(
                f"images are uint8 [B, 3, {side_px}, {side_px}], not {images.dtype} {list(images.shape)}; "
                "aerofuse.inference.package makes them"
            )
        with torch.inference_mode():
            found, features = self.model.outputs_and_features(images.to(self.device))
            outputs = {task: output.float().cpu() for task, output in found.items()}
            scores = None if self._unfamiliarity is None else self._unfamiliarity(features).cpu()
        for task, output in outputs.items():
            if not torch.isfinite(output).all():
                raise ValueError(f"{task}: the model predicts NaN or infinity; its weights are damaged or diverged")
        scaled = scale_logits(outputs, self.record.temperatures)
        if scores is not None:
            scaled[SCORE] = scores
        return [self._prediction({name: output[row] for name, output in scaled.items()}) for row in range(len(images))]

    def _prediction(self, outputs: Mapping[str, Tensor]) -> Prediction:
        """Return the answers for one photo from its scaled logits `[C]`, its values, and its score if it has one."""
        found: dict[str, Any] = {}
        if "type" in outputs:
            found["type_top5"] = _likeliest(outputs["type"], self.record.classes.types)
            found |= {"type": found["type_top5"][0].name, "type_confidence": found["type_top5"][0].confidence}
        if "airline" in outputs:
            best = _likeliest(outputs["airline"], self.record.classes.airlines)[0]
            found |= {"airline": best.name, "airline_confidence": best.confidence}
        found |= {task: float(outputs[task]) for task in ("clarity", "block") if task in outputs}
        if {"clarity", "block"} <= outputs.keys():
            found["quality_score"] = found["clarity"] * (1 - found["block"])
        if SCORE in outputs:
            found[SCORE] = float(outputs[SCORE])
            found["unfamiliar"] = found[SCORE] > UNFAMILIAR_ABOVE
        return Prediction(**found)


def load_predictor(folder: str | PathLike[str], device: str | torch.device = "cpu") -> Predictor:
    """Load a predictor from a model's folder: a package such as `models/aerofuse`, or what a training stage wrote.

    `aerofuse.load("models/aerofuse").predict("photo.jpg")` is a `Prediction`. Neither the pipeline nor its tools are
    needed. Raises `FileNotFoundError` or `ValueError` where a file is missing, damaged, or does not fit the others.
    """
    model, record = load_package(Path(folder))
    return Predictor(model, record, torch.device(device), load_unfamiliarity(Path(folder), model.num_features))


def _likeliest(logits: Tensor, names: tuple[str, ...]) -> tuple[Candidate, ...]:
    probabilities = logits.softmax(dim=0)
    # Stable: among equally likely classes the first wins, as everywhere.
    order = probabilities.argsort(descending=True, stable=True)[:_BEST].tolist()
    return tuple(Candidate(names[index], float(probabilities[index])) for index in order)
