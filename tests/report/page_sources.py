"""Made-up sources of the report, as the stages would write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from aerofuse.comparison.comparison import TRAINING_STAGES, ModelResults, Settings, compare_models
from aerofuse.comparison.times import MemoryRecord, TrainingTimes
from aerofuse.data.labels import TASKS
from aerofuse.report.sources import PageSources
from tests.metrics import samples

SETTINGS = Settings(confidence_level=0.95, resamples=200, recipe="quick", batch_size=32)
STAGES = [stage for stages in TRAINING_STAGES.values() for stage in stages]
HISTORY = pd.DataFrame(
    {
        "epoch": [1, 2],
        "train_loss": [2.0, 1.0],
        "score": [0.4, 0.6],
        "type_top1": [0.5, 0.7],
        "airline_top1": [0.6, 0.7],
        "clarity_mae": [0.2, 0.1],
        "block_mae": [0.2, 0.15],
    }
)


EXPORT: dict[str, Any] = {
    "parity": {"onnx": {"images": 120, "max_difference": 3.2e-6, "other_top1": 0, "same_top1": 1.0}},
    "latency_ms": {
        "torch eager": {"1": {"median": 9.5, "p95": 10.0}, "16": {"median": 38.0, "p95": 39.0}},
        "ONNX Runtime": {"1": {"median": 2.9, "p95": 3.0}, "16": {"median": 40.0, "p95": 41.0}},
    },
    "failed": {"torch.compile": "no compiler"},
    "fastest_by_latency": {"1": "ONNX Runtime", "16": "torch eager"},
}


def data_report(labelled: tuple[str, ...] = TASKS) -> dict[str, Any]:
    """`reports/data/report.json` of data in which only some tasks have labels."""
    split = {
        "photos": 120,
        "airframes": 40,
        "types": dict.fromkeys(samples.TYPES, 17),
        "airlines": dict.fromkeys(samples.AIRLINES, 36) if "airline" in labelled else {},
        "labelled": {task: 120 if task in labelled else 0 for task in TASKS},
        "histograms": {task: [12 if task in labelled else 0] * 10 for task in ("clarity", "block")},
    }
    return {
        "splits": {"train": split, "validation": split, "test": split},
        "merged_types": {},
        "left_out_types": {},
        "near_duplicates": 3,
        "divided_duplicates": [],
        "divided_airframes": [],
        "moved": [],
        "shared_airframes": 30,
        "dropped": [["a.jpg", "no image (truncated)"]],
    }


def mistakes_report(folder: Path, fusion_method: str = "concat", count: int = 2) -> dict[str, Any]:
    """`reports/mistakes/mistakes.json`, its pictures written to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    entries: dict[str, list[dict[str, Any]]] = {}
    for task in ("type", "clarity", "block"):
        entries[task] = []
        for number in range(count):
            files = {name: f"{task}_{number}_{name}.jpg" for name in ("photo", "cnn", "transformer")}
            for file in files.values():
                Image.fromarray(np.full((24, 24, 3), 40 * number, dtype=np.uint8)).save(folder / file)
            measure = "attention weight" if fusion_method == "attention" else "gradient x input"
            true, predicted = ("Type A", "Type <B> & C") if task == "type" else (0.1, 0.9)
            entries[task].append(
                {
                    "filename": f"{number:03d}.jpg",
                    "true": true,
                    "predicted": predicted,
                    "confidence": 0.987,
                    "shares": {"measure": measure, "values": {"cnn": 0.75, "transformer": 0.25}},
                    "pictures": files,
                }
            )
    effect = {"hottest": 3.0, "coldest": 0.5}
    return {
        "model": "hybrid",
        "fusion_method": fusion_method,
        "branches": {"cnn": "convnext_thin", "transformer": "swin_thin"},
        "occlusion_test": {"photos": 64, "effects": {"cnn": effect, "transformer": effect}},
        "mistakes": entries,
    }


def page_sources(folder: Path, results: dict[str, ModelResults] | None = None, **changed: Any) -> PageSources:
    """Sources of everything, some of them `changed`; their pictures are written to `folder`."""
    results = results or samples.results()
    folder.mkdir(parents=True, exist_ok=True)
    sheet = folder / "contact_sheet.png"
    Image.fromarray(np.zeros((20, 60, 3), dtype=np.uint8)).save(sheet)
    record = MemoryRecord(32, 70_000_000, 71_000_000, "counted in one step", 10**10, "no checkpointing", "")
    times = TrainingTimes(60.0, 0.0, 2, 2, 6000, 100.0, "Some CPU, 2 threads", 0.3, None, 0.1, 0)
    content: dict[str, Any] = {
        "comparison": compare_models(results, SETTINGS),
        "predictions": {model: result.predictions for model, result in results.items()},
        "histories": dict.fromkeys(STAGES, HISTORY),
        "training": dict.fromkeys(STAGES, times),
        "memory": dict.fromkeys(STAGES, record),
        "data": data_report(),
        "contact_sheet": sheet,
        "mistakes": mistakes_report(folder / "mistakes"),
        "mistakes_folder": folder / "mistakes",
        "params": {"recipe": "quick", "explain": {"mistakes": 2}, "recipes": {"quick": {"image_size": 96}}},
        "export": EXPORT,
        "fingerprints": dict.fromkeys(results, "ab" * 32),
        "commit": "c0ffee" * 6,
        "changed": False,
    }
    return PageSources(**content | changed)
