"""A model package as a Python model of MLflow."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, INTERNAL_ERROR
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from aerofuse import load
from aerofuse.data.photo import UnreadablePhotoError
from aerofuse.inference.predictor import PhotoResult, Prediction, Predictor
from aerofuse.serving.limits import Limits, read_content

IMAGE_COLUMN = "image"
PACKAGE_ARTIFACT = "package"
_NOTHING = Prediction().to_dict()


class PhotoModel(PythonModel):
    """Take a row per photo, and return a record per row: what `aerofuse predict` says, and `error`.

    A photo that cannot be used has the reason in `error`, and the other photos have their answers, as with
    `aerofuse predict`. A request that is wrong as a whole is refused with HTTP 400.
    """

    def load_context(self, context: PythonModelContext) -> None:
        """Load the package; MLflow calls this before the first request. Raises what `aerofuse.load` raises."""
        self._limits = Limits.from_settings(context.model_config or {})
        self._predictor: Predictor = load(context.artifacts[PACKAGE_ARTIFACT])
        # A server has many threads. They decode one photo at a time, so that many requests take no more memory.
        self._one_request_at_a_time = Lock()

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002  # MLflow calls it so
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> list[dict[str, Any]]:
        """Return a record per row of the column `image`. Raises `MlflowException` for a request that is refused."""
        photos = list(model_input[IMAGE_COLUMN])
        if len(photos) > self._limits.max_photos:
            raise MlflowException(
                f"{len(photos)} photos in one request; at most {self._limits.max_photos} are taken", BAD_REQUEST
            )
        with self._one_request_at_a_time:
            try:
                return [
                    (_NOTHING if result.prediction is None else result.prediction.to_dict()) | {"error": result.problem}
                    for result in self._results(photos)
                ]
            except ValueError as error:
                raise MlflowException(str(error), INTERNAL_ERROR) from error

    def _results(self, photos: Sequence[object]) -> Iterator[PhotoResult]:
        """Yield the result of each photo, in order. Files are written so that the code of `predict` reads them."""
        with tempfile.TemporaryDirectory() as folder:
            refused: dict[int, PhotoResult] = {}
            files: list[Path] = []
            for number, photo in enumerate(photos):
                file = Path(folder) / str(number)
                try:
                    file.write_bytes(read_content(photo, self._limits))
                    files.append(file)
                except UnreadablePhotoError as error:
                    refused[number] = PhotoResult(file, problem=str(error))
            read = self._predictor.predict_files(files)
            for number in range(len(photos)):
                yield refused[number] if number in refused else next(read)
