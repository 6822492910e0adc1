"""All that the report is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from aerofuse.comparison.comparison import TRAINING_STAGES, Comparison
from aerofuse.comparison.times import MemoryRecord, TrainingTimes
from aerofuse.plotting.wording import MODELS, write_list


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
        """The models whose predictions have a column."""
        return [model for model in MODELS if column in self.predictions[model]]

    def history_of(self, model: str) -> dict[str, pd.DataFrame]:
        """The histories of the phases of a model: for the hybrid `A`, `B`, `C`, for a baseline its only one."""
        stages = TRAINING_STAGES[model]
        names = {stage: stage.rpartition("_")[2].upper() if len(stages) > 1 else MODELS[model] for stage in stages}
        return {names[stage]: self.histories[stage] for stage in stages}


def without_label(task: str) -> str:
    """Why there is nothing to show of a task."""
    return f"No test image has a label of {task}."


def without_head(models: Sequence[str], tasks: Sequence[str]) -> str:
    """Which models do not answer some tasks."""
    names = write_list([MODELS[model] for model in models])
    return f"The {names} model{'s have' if len(models) > 1 else ' has'} no head for {write_list(tasks)}."
