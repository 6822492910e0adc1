"""The hybrid as it is handed out: weights, record and model card in `models/aerofuse`."""

from __future__ import annotations

from importlib.metadata import metadata, version
from pathlib import Path

from aerofuse.common.files import read_json
from aerofuse.common.params import load_value
from aerofuse.inference.package import PackageRecord, Preprocessing, write_package
from aerofuse.models.files import read_record
from aerofuse.report.model_card import model_card
from stages import run

TRAINED = Path("models/hybrid")
PACKAGE = Path("models/aerofuse")


def package() -> None:
    record = read_record(TRAINED)
    contents = PackageRecord(
        preprocessing=Preprocessing(record.image_size_px),
        test=read_json(Path("metrics/evaluate/hybrid.json"))["hybrid"],
        versions={name: version(name) for name in ("aerofuse", "torch", "timm")},
        licence=metadata("aerofuse")["License-Expression"],
    )
    card = model_card(record, contents, load_value(str, "data.source"))
    write_package(PACKAGE, TRAINED, contents, card)


if __name__ == "__main__":
    run(package)
