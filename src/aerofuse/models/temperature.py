"""Temperature scaling: logits divided by one number per head, so that confidences are true (arXiv 1706.04599)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from aerofuse.data.labels import CLASSIFICATION_TASKS


def scale_logits(outputs: Mapping[str, Tensor], temperatures: Mapping[str, float]) -> dict[str, Tensor]:
    """The outputs of a model `{task: logits [B, C] or value [B]}` in float64, logits divided by their temperature.

    In float32 two logits that differ could become equal, and another class the likeliest. Raises `ValueError` where
    a classification task has no temperature.
    """
    missing = [task for task in outputs if task in CLASSIFICATION_TASKS and task not in temperatures]
    if missing:
        raise ValueError(
            f"no temperature for {', '.join(missing)}: the model is not calibrated; `dvc repro` trains it to the end"
        )
    return {
        task: output.double() / temperatures[task] if task in CLASSIFICATION_TASKS else output.double()
        for task, output in outputs.items()
    }
