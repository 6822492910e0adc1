"""The three models side by side, and the gates."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from aerofuse.evaluation.comparison import TRAINING_STAGES, ModelResults, Settings, compare_models
from aerofuse.evaluation.predictions import read_predictions
from aerofuse.evaluation.times import EvaluationTimes, MemoryRecord, TrainingTimes
from aerofuse.params.evaluation import CompareParams
from aerofuse.params.loading import load_section, load_value
from aerofuse.params.training import PhaseParams
from aerofuse.reporting.comparison_picture import draw_comparison
from aerofuse.reporting.json_files import read_json, write_json
from aerofuse.reporting.learning_curves import draw_learning_curves
from aerofuse.reporting.tables import comparison_page
from aerofuse.reporting.wording import MODELS
from stages import run

REPORTS = Path("reports")
TIMES = REPORTS / "times"


def compare() -> None:
    params = load_section(CompareParams, "compare")
    settings = Settings(
        confidence_level=params.confidence_level,
        resamples=params.bootstrap_samples,
        recipe=load_value(str, "recipe"),
        batch_size=trained_batch_size("train_stage_c"),
    )
    comparison = compare_models({model: read_results(model) for model in TRAINING_STAGES}, settings)
    write_json(Path("metrics/compare.json"), comparison.flat_metrics())
    write_json(REPORTS / "comparison.json", comparison.to_json())
    (REPORTS / "comparison.md").write_text(comparison_page(comparison), encoding="utf-8")
    draw_comparison(comparison, REPORTS / "comparison.png")
    histories = {
        stage.removeprefix("train_"): pd.read_csv(Path("plots/history") / f"{stage}.csv")
        for stage in TRAINING_STAGES["hybrid"]
    }
    draw_learning_curves(histories, MODELS["hybrid"], Path("plots/learning_curves.png"))
    failed = [gate.name for gate in comparison.failed_gates]
    if failed and params.stop_on_failed_gate:
        raise ValueError(
            f"the hybrid fails {', '.join(failed)}, and compare.stop_on_failed_gate is true; "
            f"see {REPORTS / 'comparison.md'}"
        )


def read_results(model: str) -> ModelResults:
    return ModelResults(
        metrics=read_json(Path("metrics/evaluate") / f"{model}.json")[model],
        predictions=read_predictions(REPORTS / "predictions" / f"{model}.parquet"),
        times=EvaluationTimes.read(TIMES / f"evaluate_{model}.json"),
        training=tuple(TrainingTimes.read(TIMES / f"{stage}.json") for stage in TRAINING_STAGES[model]),
    )


def trained_batch_size(stage: str) -> int:
    """What was asked for, or what `auto` came to."""
    asked = load_section(PhaseParams, f"recipes.{{recipe}}.{stage}").batch_size
    return MemoryRecord.read(TIMES / f"{stage}.json").batch_size if isinstance(asked, str) else asked


if __name__ == "__main__":
    run(compare)
