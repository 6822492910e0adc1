"""The hybrid's worst mistakes on the test split: where each branch looked, and what each branch added."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from aerofuse.common.files import write_json
from aerofuse.common.params import load_section
from aerofuse.data.store import PhotoStore
from aerofuse.inference.explain import Explanation, explain
from aerofuse.inference.occlusion_test import occlusion_effects
from aerofuse.metrics.params import ExplainParams
from aerofuse.metrics.predictions import read_predictions, worst_mistakes
from aerofuse.models.files import load_model
from aerofuse.plotting.images import Pixels, overlay, write_jpegs
from stages import run

MODEL = "hybrid"
FOLDER = Path("reports/mistakes")
_MAX_BYTES = 900_000
_COVERED_PHOTOS = 64  # spread evenly over the test split: enough to tell a map from a guess


def explain_mistakes() -> None:
    params = load_section(ExplainParams, "explain")
    model, record = load_model(Path("models") / MODEL)
    photos = PhotoStore(Path("data/prepared/test.arrow"))
    predictions = read_predictions(Path("reports/predictions") / f"{MODEL}.parquet")
    mistakes: dict[str, list[dict[str, Any]]] = {}
    pictures: dict[str, Pixels] = {}
    for task, rows in worst_mistakes(predictions, params.mistakes).items():
        mistakes[task] = []
        images = [photos.image(int(row)) for row in rows.index]
        for number, (image, (_, row)) in enumerate(tqdm(list(zip(images, rows.iterrows(), strict=True)), desc=task)):
            explanation = explain(model, as_tensor(image), task=task)
            shown = {"photo": image} | {name: overlay(image, heat) for name, heat in explanation.maps.items()}
            files = {name: f"{task}_{number + 1:02d}_{name}.jpg" for name in shown}
            pictures |= {files[name]: pixels for name, pixels in shown.items()}
            mistakes[task].append(describe(task, row, explanation) | {"pictures": files})
    write_jpegs(pictures, FOLDER, _MAX_BYTES)
    step = max(1, len(photos) // _COVERED_PHOTOS)
    some = [as_tensor(photos.image(row)) for row in range(0, len(photos), step)]
    content = {
        "model": MODEL,
        "fusion_method": record.architecture.fusion_method,
        "branches": {"cnn": record.architecture.cnn, "transformer": record.architecture.transformer},
        "occlusion_test": {
            "photos": len(some),
            "effects": {branch: asdict(effect) for branch, effect in occlusion_effects(model, some).items()},
        },
        "mistakes": mistakes,
    }
    write_json(FOLDER / "mistakes.json", content)


def as_tensor(image: Pixels) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def describe(task: str, row: pd.Series[Any], explanation: Explanation) -> dict[str, Any]:
    """One photo's label and prediction, and what each branch had to do with it."""
    described = {"filename": row["filename"], "true": row[task], "predicted": row[f"{task}_predicted"]}
    if task == "type":
        described["confidence"] = float(row["type_confidence"])
    else:
        described = described | {name: float(described[name]) for name in ("true", "predicted")}
    shares = explanation.shares
    return described | {"shares": None if shares is None else asdict(shares)}


if __name__ == "__main__":
    run(explain_mistakes)
