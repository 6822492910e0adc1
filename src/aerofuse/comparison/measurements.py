"""What was measured for each gate, and where nothing was, why not."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from aerofuse.comparison.gates import ACCURACY_GATES, Measurement
from aerofuse.comparison.times import EvaluationTimes, TrainingTimes
from aerofuse.metrics.statistics import Difference, McNemar


def accuracy_evidence(metrics: Mapping[str, float], predictions: pd.DataFrame) -> dict[str, Measurement]:
    """The metrics of the accuracy gates.

    A correlation that is missing although the labels vary means that the predictions are constant: that is a
    failure of the model. Everything else that is missing has no labels to be measured with.
    """
    evidence = {}
    for gate in ACCURACY_GATES:
        task = gate.metric.partition("_")[0]
        labelled = int(metrics.get(f"{task}_labelled", 0))
        if gate.metric in metrics:
            evidence[gate.metric] = Measurement(metrics[gate.metric], f"{labelled} test images")
        elif gate.metric.endswith("_plcc") and task in predictions and predictions[task].nunique() > 1:
            note = f"undefined: the same {task} is predicted for all {labelled} test images"
            evidence[gate.metric] = Measurement(None, note, undefined=True)
        else:
            note = (
                f"the {task} labels of the test images are all the same"
                if labelled
                else f"no test image has a label of {task}"
            )
            evidence[gate.metric] = Measurement(None, note)
    return evidence


def gain_evidence(gain: Difference | None, mcnemar: McNemar | None, confidence_level: float) -> Measurement:
    """The hybrid's type top-1 minus the multi-task model's, its interval and McNemar's test as a note."""
    if gain is None or mcnemar is None:
        return Measurement(None, "no test image has a label of type")
    note = (
        f"{confidence_level:.0%} interval {100 * gain.low:+.2f} to {100 * gain.high:+.2f} points; "
        f"right in one model only: {mcnemar.only_a} hybrid, {mcnemar.only_b} multi-task "
        f"(McNemar p = {mcnemar.p_value:.2g})"
    )
    return Measurement(gain.estimate, note)


def latency_evidence(times: EvaluationTimes) -> Measurement:
    """The median latency, with the device and the size of the image that it is true for."""
    note = f"{times.device}, {times.image_size} px; 95th percentile {times.latency_p95_ms:.1f} ms"
    return Measurement(times.latency_ms, note)


def memory_evidence(last_phase: TrainingTimes, recipe: str, batch_size: int) -> Measurement:
    """The allocator's peak in the hybrid's last phase, which trains everything and so needs the most.

    The gate is about one setting: a GPU, the recipe `base`, batches of 16.
    """
    if recipe != "base" or batch_size != 16:
        return Measurement(None, f"recipe {recipe}, batch {batch_size}; the gate is for recipe base, batch 16")
    if last_phase.peak_memory_bytes is None:
        return Measurement(None, f"trained on {last_phase.device}, not on a GPU")
    return Measurement(last_phase.peak_memory_bytes, last_phase.device)
