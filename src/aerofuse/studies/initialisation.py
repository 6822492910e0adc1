"""What the bundled weights bring against random ones: `make initialisation`.

The same pipeline, data, seeds and epochs, once from the bundled weights (the workspace's results) and once from
random ones (an experiment). `reports/initialisation.md` is the result.
"""

from __future__ import annotations

from pathlib import Path

from aerofuse.params.loading import load_value
from aerofuse.reporting.tables import markdown_table
from aerofuse.reporting.wording import METRICS, MODELS, write_value
from aerofuse.studies.experiments import Metrics, metrics_by_name, run_experiment

RANDOM = "random-weights"
SHOWN = ("type_top1", "type_top5", "airline_top1", "clarity_mae", "block_mae")


def initialisation_page(bundled: Metrics, random: Metrics) -> str:
    """Both results of every model side by side, as Markdown."""
    rows = []
    for model, model_name in MODELS.items():
        for weights_name, metrics in (("bundled", bundled), ("random", random)):
            values = metrics[f"metrics/evaluate/{model}.json"][model]
            rows.append(
                [model_name, weights_name, *(write_value(values.get(name), METRICS[name][1]) for name in SHOWN)]
            )
    header = ["model", "weights at the start", *(METRICS[name][0] for name in SHOWN)]
    return markdown_table(header, rows, "ll" + "r" * len(SHOWN)) + "\n"


def main() -> None:
    """Run the experiment and write the table."""
    weights = f"recipes.{load_value(str, 'recipe')}.weights"
    run_experiment(RANDOM, {f"{weights}.source": "none", f"+{weights}.allow_random": "true"})
    metrics = metrics_by_name()
    page = initialisation_page(metrics["workspace"], metrics[RANDOM])
    Path("reports/initialisation.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
