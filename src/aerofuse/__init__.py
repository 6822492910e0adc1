"""Aerofuse: fine-grained aircraft recognition with a fused ConvNeXt and Swin Transformer."""

from __future__ import annotations

import importlib
from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aerofuse.inference.predictor import Predictor


def load(folder: str | PathLike[str], device: str = "cpu") -> Predictor:
    """A predictor from a model's folder: a package such as `models/aerofuse`, or what a training stage wrote.

    `aerofuse.load("models/aerofuse").predict("photo.jpg")` is a `Prediction`. Neither the pipeline nor its tools are
    needed. Raises `FileNotFoundError` or `ValueError` where a file is missing, damaged, or does not fit the others.
    """
    # By name and when called: every module imports this one, and few of them predict.
    collection = importlib.import_module("aerofuse.paused_collection")
    with collection.paused_collection():
        deferral = importlib.import_module("aerofuse.inference.deferred_compiler")
        with deferral.deferred_compiler():
            predictor = importlib.import_module("aerofuse.inference.predictor")
    loaded: Predictor = predictor.load_predictor(folder, device)
    return loaded
