"""One model on the test split, from its one best checkpoint: `python -m stages.evaluate <model>`."""

from __future__ import annotations

import argparse
from pathlib import Path

from accelerate import Accelerator

from aerofuse.common.files import write_json
from aerofuse.common.params import load_section
from aerofuse.data.dataset import PreparedSplit, make_loader
from aerofuse.metrics.calibration import calibration_metrics
from aerofuse.metrics.collect import collect_outputs
from aerofuse.metrics.latency import measure_latency
from aerofuse.metrics.metrics import compute_metrics, constant_predictor_maes
from aerofuse.metrics.params import EvaluateParams
from aerofuse.metrics.predictions import plotted_columns, prediction_table, write_predictions
from aerofuse.models.files import load_model
from aerofuse.models.heads import scale_logits
from aerofuse.plotting.answers import draw_answers
from aerofuse.plotting.wording import MODELS
from stages import run

PREPARED = Path("data/prepared")


def evaluate(name: str) -> None:
    params = load_section(EvaluateParams, "recipes.{recipe}.evaluate")
    model, record = load_model(Path("models") / name)
    types, airlines = record.classes.types, record.classes.airlines
    test = PreparedSplit(PREPARED / "test.arrow", record.classes)
    train = PreparedSplit(PREPARED / "train.arrow", record.classes)
    accelerator = Accelerator()
    loader = make_loader(test, batch_size=params.batch_size, num_workers=0)
    prepared_model, prepared_loader = accelerator.prepare(model, loader)
    outputs, targets = collect_outputs(prepared_model, prepared_loader, accelerator)

    scaled = scale_logits(outputs, record.temperatures)
    metrics = dict(compute_metrics(scaled, targets))
    metrics |= dict(calibration_metrics(outputs, targets, record.temperatures))
    constant = constant_predictor_maes(train.labels, test.labels)
    metrics |= {metric: mae for metric, mae in constant.items() if metric.partition("_")[0] in outputs}
    write_json(Path("metrics/evaluate") / f"{name}.json", {name: metrics})
    predictions = prediction_table(test.labels, scaled, types, airlines, uncalibrated=outputs)
    write_predictions(Path("reports/predictions") / f"{name}.parquet", predictions)

    plots = Path("plots/evaluate") / name
    draw_answers(predictions, types, metrics, name, plots)
    plotted_columns(predictions).to_csv(plots / "predictions.csv", index=False, lineterminator="\n")

    latency = measure_latency(model, record.image_size_px, accelerator.device, params.latency_runs)
    times = {
        "latency_ms": latency.median_ms,
        "latency_p95_ms": latency.p95_ms,
        "device": latency.device_name,
        "busy_elsewhere": latency.busy_elsewhere,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "image_size": record.image_size_px,
    }
    write_json(Path("reports/times") / f"evaluate_{name}.json", times)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=MODELS)
    chosen: str = parser.parse_args().model
    run(lambda: evaluate(chosen))
