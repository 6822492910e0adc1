"""The last step of a training: the temperatures of the model that is kept."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from accelerate import Accelerator

from aerofuse.metrics.calibration import fit_temperatures
from aerofuse.metrics.collect import Batch, collect_outputs
from aerofuse.models.files import load_model


def calibrate(folder: Path, validation: Iterable[Batch], accelerator: Accelerator) -> dict[str, float]:
    """The temperatures of the model in `folder`, which all processes reach, fitted on the validation split.

    All processes call it, and all get the same. The model is loaded anew, whole and in float32: in memory is that of
    the last epoch, perhaps in shares.
    """
    accelerator.wait_for_everyone()  # one of them writes the folder
    model, _ = load_model(folder)
    return fit_temperatures(*collect_outputs(model.to(accelerator.device), validation, accelerator))
