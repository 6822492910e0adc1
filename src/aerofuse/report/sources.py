"""What the report shows: the results that the stages wrote, and the parts of its page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from aerofuse.common.markdown import Table
from aerofuse.comparison.comparison import TRAINING_STAGES, Comparison
from aerofuse.comparison.times import MemoryRecord, TrainingTimes
from aerofuse.plotting.chart import Chart
from aerofuse.plotting.wording import MODELS


@dataclass(frozen=True)
class PageSources:
    """What the stages wrote.

    `predictions` per model; `histories` (a row per epoch), `training` and `memory` per training stage, the last
    `None` where no memory was recorded; `data` is `reports/data/report.json` and `contact_sheet` a PNG beside it;
    `mistakes` is `reports/mistakes/mistakes.json`, its pictures in `mistakes_folder`; `params` are those that these
    results follow from; `export` is `reports/export.json`; `fingerprints` are SHA-256 sums of the prediction tables;
    `commit` is that of the code, if git knows one, and `changed` whether the code was changed since.
    """

    comparison: Comparison
    predictions: Mapping[str, pd.DataFrame]
    histories: Mapping[str, pd.DataFrame]
    training: Mapping[str, TrainingTimes]
    memory: Mapping[str, MemoryRecord | None]
    data: Mapping[str, Any]
    contact_sheet: Path
    mistakes: Mapping[str, Any]
    mistakes_folder: Path
    params: Mapping[str, Any]
    export: Mapping[str, Any]
    fingerprints: Mapping[str, str]
    commit: str | None
    changed: bool

    def models_with(self, column: str) -> list[str]:
        """Return the models whose predictions have a column."""
        return [model for model in MODELS if column in self.predictions[model]]

    def metrics_of(self, model: str) -> Mapping[str, float]:
        """Return the metrics of a model."""
        return next(row.metrics for row in self.comparison.rows if row.model == model)

    def history_of(self, model: str) -> dict[str, pd.DataFrame]:
        """Return the histories of the phases of a model: for the hybrid `A`, `B`, `C`, for a baseline its only one."""
        stages = TRAINING_STAGES[model]
        names = {stage: stage.rpartition("_")[2].upper() if len(stages) > 1 else MODELS[model] for stage in stages}
        return {names[stage]: self.histories[stage] for stage in stages}


@dataclass(frozen=True)
class Picture:
    """A picture inside the page, with what it shows in words."""

    uri: str
    alt: str
    title: str


@dataclass(frozen=True)
class PageSection:
    """A section of the page: its table, sentences in which backticks mark code, charts, and a picture."""

    table: Table
    notes: list[str]
    charts: list[Chart] = field(default_factory=list)
    sheet: Picture | None = None
