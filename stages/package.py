"""The hybrid as it is handed out: weights, record and model card in `models/aerofuse`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import metadata, version
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from aerofuse.common.files import read_json
from aerofuse.common.params import load_value
from aerofuse.data.dataset import PreparedSplit, spread
from aerofuse.inference.package import PackageRecord, Preprocessing, write_package
from aerofuse.inference.unfamiliarity import PHOTOS_PER_FEATURE, Unfamiliarity, fit_unfamiliarity
from aerofuse.models.aircraft_model import AircraftModel
from aerofuse.models.files import load_model
from aerofuse.report.model_card import model_card
from stages import run

TRAINED = Path("models/hybrid")
PREPARED = Path("data/prepared")
PACKAGE = Path("models/aerofuse")
_BATCH_SIZE = 32


def package() -> None:
    model, record = load_model(TRAINED)
    contents = PackageRecord(
        preprocessing=Preprocessing.of(record),
        test=read_json(Path("metrics/evaluate/hybrid.json"))["hybrid"],
        versions={name: version(name) for name in ("aerofuse", "torch", "timm")},
        licence=metadata("aerofuse")["License-Expression"],
    )
    card = model_card(record, contents, load_value(str, "data.source"))
    splits = (PreparedSplit(PREPARED / f"{name}.arrow", record.classes) for name in ("train", "validation"))
    write_package(PACKAGE, TRAINED, contents, card, _measure(model, *splits))


def _measure(model: AircraftModel, training: PreparedSplit, validation: PreparedSplit) -> Unfamiliarity:
    """Fit what is unfamiliar to the model, on training photos that are spread evenly over their split."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    features, types = _features(model, training, spread(len(training), PHOTOS_PER_FEATURE * model.num_features))
    return fit_unfamiliarity(features, types, _features(model, validation, range(len(validation)))[0])


def _features(model: AircraftModel, split: PreparedSplit, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the features `[N, D]` of photos, and their types `[N]`."""
    device = next(model.parameters()).device
    features, types = [], []
    loader = DataLoader(Subset(split, rows), batch_size=_BATCH_SIZE)
    with torch.inference_mode():
        for images, targets in tqdm(loader, desc="features", leave=False, disable=None):
            features.append(model.outputs_and_features(images.to(device))[1].float().cpu())
            types.append(targets["type"])
    return torch.cat(features), torch.cat(types)


if __name__ == "__main__":
    run(package)
