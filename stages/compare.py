"""The three models side by side, the gates, and the report."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pandas as pd

from aerofuse.common.files import read_json, write_json
from aerofuse.common.params import load_section, load_value, read_params_file, resolve
from aerofuse.comparison.comparison import TRAINING_STAGES, Comparison, ModelResults, Settings, compare_models
from aerofuse.comparison.times import EvaluationTimes, MemoryRecord, TrainingTimes
from aerofuse.metrics.params import CompareParams
from aerofuse.metrics.predictions import read_predictions
from aerofuse.plotting.chart import write_picture
from aerofuse.plotting.learning import draw_learning_curves
from aerofuse.plotting.models import draw_comparison
from aerofuse.plotting.wording import MODELS
from aerofuse.report.render import write_page
from aerofuse.report.sources import PageSources
from aerofuse.report.tables import comparison_page
from aerofuse.tracking.run_request import describe_run
from aerofuse.tracking.tracker import TrackingParams, track_run
from aerofuse.training.params import PhaseParams
from stages import run

REPORTS = Path("reports")
TIMES = REPORTS / "times"
STAGES = [stage for stages in TRAINING_STAGES.values() for stage in stages]
# What MLflow keeps a copy of.
RESULTS = (
    REPORTS / "index.html",
    REPORTS / "comparison.md",
    REPORTS / "comparison.png",
    REPORTS / "charts",
    REPORTS / "mistakes",
    Path("plots/learning_curves.png"),
    Path("plots/evaluate"),
)
# What results follow from, besides the active recipe.
PARAMS = ("recipe", "fusion_method", "seed", "launch", "data", "explain", "compare")


def compare() -> None:
    params = load_section(CompareParams, "compare")
    settings = Settings(
        confidence_level=params.confidence_level,
        resamples=params.bootstrap_samples,
        recipe=load_value(str, "recipe"),
        batch_size=trained_batch_size("train_stage_c"),
    )
    results = {model: read_results(model) for model in TRAINING_STAGES}
    comparison = compare_models(results, settings)
    write_json(Path("metrics/compare.json"), comparison.flat_metrics())
    write_json(REPORTS / "comparison.json", comparison.to_json())
    (REPORTS / "comparison.md").write_text(comparison_page(comparison), encoding="utf-8")
    draw_comparison(comparison, REPORTS / "comparison.png")
    histories = {stage: pd.read_csv(Path("plots/history") / f"{stage}.csv") for stage in STAGES}
    sources = read_sources(comparison, results, histories)
    hybrid = MODELS["hybrid"]
    draw_learning_curves(sources.history_of("hybrid"), hybrid, Path("plots/learning_curves.png"), title=hybrid)
    for chart in write_page(sources, REPORTS / "index.html"):
        write_picture(REPORTS / "charts" / f"{chart.name}.png", [[chart]])
    log_results(comparison)
    failed = [gate.name for gate in comparison.failed_gates]
    if failed and params.stop_on_failed_gate:
        raise ValueError(
            f"the hybrid fails {', '.join(failed)}, and compare.stop_on_failed_gate is true; "
            f"see {REPORTS / 'comparison.md'}"
        )


def log_results(comparison: Comparison) -> None:
    """The results as a run beside those of the trainings: test metrics of each model, the report and its figures."""
    with track_run("compare", load_section(TrackingParams, "tracking")) as tracker:
        for row in comparison.rows:
            tracker.log_metrics({f"{row.model}/{name}": value for name, value in row.metrics.items()}, step=0)
        tracker.log_metrics(comparison.flat_metrics()["compare"], step=0)
        for result in RESULTS:
            tracker.log_artifact(result)


def read_results(model: str) -> ModelResults:
    return ModelResults(
        metrics=read_json(Path("metrics/evaluate") / f"{model}.json")[model],
        predictions=read_predictions(REPORTS / "predictions" / f"{model}.parquet"),
        times=EvaluationTimes.read(TIMES / f"evaluate_{model}.json"),
        training=tuple(TrainingTimes.read(TIMES / f"{stage}.json") for stage in TRAINING_STAGES[model]),
    )


def read_sources(
    comparison: Comparison, results: dict[str, ModelResults], histories: dict[str, pd.DataFrame]
) -> PageSources:
    """All that the report shows."""
    tags = describe_run("compare", experiment="", uri="", root=Path()).tags
    return PageSources(
        comparison=comparison,
        predictions={model: result.predictions for model, result in results.items()},
        histories=histories,
        training={stage: TrainingTimes.read(TIMES / f"{stage}.json") for stage in STAGES},
        memory={stage: MemoryRecord.find(TIMES / f"{stage}.json") for stage in STAGES},
        data=read_json(REPORTS / "data" / "report.json"),
        contact_sheet=REPORTS / "data" / "contact_sheet.png",
        mistakes=read_json(REPORTS / "mistakes" / "mistakes.json"),
        mistakes_folder=REPORTS / "mistakes",
        params=shown_params(),
        export=read_json(REPORTS / "export.json"),
        fingerprints={
            model: hashlib.sha256((REPORTS / "predictions" / f"{model}.parquet").read_bytes()).hexdigest()
            for model in results
        },
        commit=tags.get("mlflow.source.git.commit"),
        changed=tags["git_dirty"] == "true",
    )


def shown_params() -> dict[str, Any]:
    """The parameters of this run: of the recipes only the active one."""
    params = resolve(read_params_file())
    recipe = params["recipe"]
    return {name: params[name] for name in PARAMS} | {"recipes": {recipe: params["recipes"][recipe]}}


def trained_batch_size(stage: str) -> int:
    """What was asked for, or what `auto` came to."""
    asked = load_section(PhaseParams, f"recipes.{{recipe}}.{stage}").batch_size
    return MemoryRecord.read(TIMES / f"{stage}.json").batch_size if isinstance(asked, str) else asked


if __name__ == "__main__":
    run(compare)
