"""The records of a training stage beside its model: metrics, history, times and memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from aerofuse.common.files import write_json
from aerofuse.plotting.learning import draw_learning_curves
from aerofuse.plotting.wording import STAGES
from aerofuse.training.params import PhaseParams
from aerofuse.training.state import TrainingReport


def write_records(
    stage: str, report: TrainingReport, phase: PhaseParams, device: str, memory: Mapping[str, object]
) -> list[Path]:
    """Write the best epoch, the history as a table and a picture, and times and memory; return the files."""
    metrics = Path("metrics/train") / f"{stage}.json"
    history = Path("plots/history") / f"{stage}.csv"
    times = Path("reports/times") / f"{stage}.json"
    # The history has all metrics of every epoch; here are two short columns for `dvc metrics diff`.
    write_json(metrics, {stage: {"best_epoch": report.best_epoch, "score": round(report.best_metrics["score"], 6)}})
    history.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(report.history).round(6)
    table.to_csv(history, index=False)
    curves = history.with_suffix(".png")
    model = STAGES[stage].partition(",")[0]
    draw_learning_curves({stage: table}, model, curves, title=STAGES[stage])
    spent = {
        "seconds": round(report.seconds, 1),
        "epochs": phase.epochs,
        "images": report.images,
        "images_per_second": round(report.images_per_second, 1),
        "device": device,
        "peak_memory_bytes": report.peak_memory_bytes,
        "seconds_saving_state": round(report.saving_seconds, 2),
        "resumed": report.resumed,
        "memory": memory,
    }
    write_json(times, spent)
    return [metrics, history, curves, times]
