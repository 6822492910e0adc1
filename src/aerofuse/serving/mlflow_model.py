"""Write a model package as an MLflow model, to a folder or to a model registry. No pickle is written or read."""

from __future__ import annotations

import base64
import dataclasses
import io
import shutil
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array, Object, Property
from PIL import Image

import aerofuse
from aerofuse.inference.package import load_package
from aerofuse.serving import model_code
from aerofuse.serving.limits import Limits
from aerofuse.serving.photo_model import IMAGE_COLUMN, PACKAGE_ARTIFACT
from aerofuse.tracking.addresses import tracking_uri
from aerofuse.tracking.store import make_client

_EXPERIMENT = "aerofuse"  # also the default experiment of the trainings, in params.yaml
_MARK = "MLmodel"  # MLflow recognises a model by this file
# Predicting imports these packages; they name their own requirements.
REQUIREMENTS = (
    "huggingface_hub",
    "mlflow",
    "numpy",
    "opencv-python-headless",
    "pandas",
    "pillow",
    "psutil",
    "pyarrow",
    "pydantic",
    "safetensors",
    "timm",
    "torch",
    "torchvision",
)


def signature() -> ModelSignature:
    """Return the signature: a photo as base64 in, and out the record of `aerofuse predict` with `error`.

    The column is a string, because MLflow passes a string on unchanged. It decodes a binary column in only one of its
    four request formats, and there it leaves out what is not base64.
    """
    candidates = Array(Object([Property("name", DataType.string), Property("confidence", DataType.double)]))
    outputs: dict[str, DataType | Array] = {
        "type": DataType.string,
        "type_confidence": DataType.double,
        "type_top5": candidates,
        "airline": DataType.string,
        "airline_confidence": DataType.double,
        "clarity": DataType.double,
        "block": DataType.double,
        "quality_score": DataType.double,
        "unfamiliar_score": DataType.double,
        "unfamiliar": DataType.boolean,
        "error": DataType.string,
    }
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.string, IMAGE_COLUMN)]),
        outputs=Schema([ColSpec(kind, name, required=False) for name, kind in outputs.items()]),
    )


def write_mlflow_model(package: Path, output: Path, limits: Limits | None = None) -> None:
    """Write an MLflow model of a package to the folder `output`; an older MLflow model there is replaced.

    Raises `FileNotFoundError` or `ValueError` for a package that cannot be loaded, and `ValueError` where `output`
    holds something else.
    """
    load_package(package)
    if output.exists() and not (output / _MARK).is_file() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output} is not an MLflow model, and is not replaced by one; name another folder")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as folder:
        new = Path(folder) / "model"
        mlflow.pyfunc.save_model(new, **_contents(package, limits or Limits()))
        if output.exists():
            shutil.rmtree(output)
        new.rename(output)


def register_mlflow_model(package: Path, name: str, repo: Path, limits: Limits | None = None) -> str:
    """Log the MLflow model of a package in a run of its own, register it as `name`, and return its version.

    It goes to `MLFLOW_TRACKING_URI`, or to the store in `repo`. Raises what MLflow raises.
    """
    uri = tracking_uri(repo)
    client = make_client(uri)
    found = client.get_experiment_by_name(_EXPERIMENT)
    if found is not None:
        experiment_id = found.experiment_id
    else:
        artifacts = (repo / "mlartifacts").as_uri() if uri.startswith("sqlite:") else None
        experiment_id = client.create_experiment(_EXPERIMENT, artifact_location=artifacts)
    mlflow.set_tracking_uri(uri)
    with mlflow.start_run(experiment_id=experiment_id, run_name="mlflow_model"):
        contents = _contents(package, limits or Limits())
        logged = mlflow.pyfunc.log_model(name="model", registered_model_name=name, **contents)
    return str(logged.registered_model_version)


def _contents(package: Path, limits: Limits) -> dict[str, Any]:
    return {
        "python_model": model_code.__file__,
        "artifacts": {PACKAGE_ARTIFACT: str(package)},
        # With the code, the folder serves wherever the requirements are installed.
        "code_paths": [str(Path(aerofuse.__file__).parent)],
        "model_config": dataclasses.asdict(limits),
        "signature": signature(),
        "input_example": _example(),
        "pip_requirements": [f"{name}=={metadata.version(name).split('+')[0]}" for name in REQUIREMENTS],
    }


def _example() -> pd.DataFrame:
    """Return a request with an empty photo; MLflow keeps it beside the model as an example file."""
    file = io.BytesIO()
    Image.new("RGB", (64, 48), "skyblue").save(file, "JPEG")
    return pd.DataFrame({IMAGE_COLUMN: [base64.b64encode(file.getvalue()).decode()]})
