"""What the page says of a photo: the prediction, and where each branch of the model looks for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from aerofuse.data.photo_files import fit_square, open_photo
from aerofuse.inference.explain import BranchShares, explain
from aerofuse.inference.package import load_package
from aerofuse.inference.predictor import Prediction, Predictor
from aerofuse.inference.preprocessing import Pixels, as_batch, read_photo
from aerofuse.plotting.mistake_pictures import overlay

PICTURE_PX = 384


@dataclass(frozen=True, eq=False)
class PhotoAnswer:
    """`photo` is what the model is shown, in more pixels; `maps` has a picture per backbone, `shares` their parts."""

    prediction: Prediction
    photo: Pixels
    maps: Mapping[str, Pixels]
    shares: Mapping[str, float] | None
    measure: str | None


class PhotoAnswers:
    """A model, loaded once. Raises what `aerofuse.load` raises."""

    def __init__(self, folder: Path) -> None:
        self._model, self.record = load_package(folder)
        self._predictor = Predictor(self._model, self.record, torch.device("cpu"))

    def answer(self, file: Path) -> PhotoAnswer:
        """Of a photo file, the same as `aerofuse predict` says. Raises `UnreadablePhotoError` with the reason."""
        images = as_batch([read_photo(file, self.record.image_size_px)])
        (prediction,) = self._predictor.predict_batch(images)
        photo = fit_square(open_photo(file, PICTURE_PX).image, PICTURE_PX)
        task = self.record.architecture.tasks[0]
        explanation = explain(self._model, images[0], task=task)
        maps = {self._backbone(branch): overlay(photo, _enlarged(heat)) for branch, heat in explanation.maps.items()}
        shares: BranchShares | None = explanation.shares
        if shares is None:
            return PhotoAnswer(prediction, photo, maps, None, None)
        named = {self._backbone(branch): value for branch, value in shares.values.items()}
        return PhotoAnswer(prediction, photo, maps, named, shares.measure)

    def _backbone(self, branch: str) -> str:
        return str(getattr(self.record.architecture, branch))


def _enlarged(heat: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A map `[H, W]` in 0..1 as large as the picture."""
    large = Image.fromarray(heat).resize((PICTURE_PX, PICTURE_PX), Image.Resampling.BILINEAR)
    return np.asarray(large, dtype=np.float32)
