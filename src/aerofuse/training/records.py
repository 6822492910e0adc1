"""What a training stage leaves beside its model: metrics, history, times and memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from aerofuse.plotting.learning import draw_learning_curves
from aerofuse.plotting.wording import STAGES
from aerofuse.training.params import PhaseParams
from aerofuse.training.state import TrainingReport


def write_records(
    stage: str, report: TrainingReport, phase: PhaseParams, device: str, memory: Mapping[str, object]
) -> list[Path]:
    """Write the metrics of the best epoch, the history as a table and a picture, and times and memory."""
    metrics = Path("metrics/train") / f"{stage}.json"
    history = Path("plots/history") / f"{stage}.csv"
    times = Path("reports/times") / f"{stage}.json"
    for path in (metrics, history, times):
        path.parent.mkdir(parents=True, exist_ok=True)
    # All metrics of every epoch are in the history; here, two short columns for `dvc metrics diff`.
    best = {"best_epoch": report.best_epoch, "score": round(report.best_metrics["score"], 6)}
    metrics.write_text(json.dumps({stage: best}, indent=2) + "\n")
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
    times.write_text(json.dumps(spent, indent=2) + "\n")
    return [metrics, history, curves, times]
