"""What the bundled weights bring against random ones: `make initialisation`.

The same pipeline, data, seeds and epochs, once from the bundled weights (the workspace's results) and once from
random ones (an experiment). `reports/initialisation.md` is the result. `make photographs` does it on photographs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from aerofuse.common.markdown import markdown_table
from aerofuse.common.params import load_value
from aerofuse.plotting.wording import METRICS, MODELS, write_value
from aerofuse.tuning.repository import HEADLINES, read_metrics
from tools.studies.experiments import Metrics, run_experiment

RANDOM = "random-weights"


def initialisation_page(bundled: Metrics, random: Metrics, models: Sequence[str]) -> str:
    """Write both results of each model side by side, as Markdown."""
    rows = []
    for model in models:
        for weights_name, metrics in (("bundled", bundled), ("random", random)):
            values = metrics[f"metrics/evaluate/{model}.json"][model]
            shown = [write_value(values.get(name), METRICS[name][1]) for name in HEADLINES]
            rows.append([MODELS[model], weights_name, *shown])
    header = ["model", "weights at the start", *(METRICS[name][0] for name in HEADLINES)]
    return markdown_table(header, rows, "ll" + "r" * len(HEADLINES)) + "\n"


def _known_model(name: str) -> str:
    # In some versions of Python, the `choices` of argparse refuse an empty list of positional arguments.
    if name not in MODELS:
        raise argparse.ArgumentTypeError(f"{name!r} is not known; there are {', '.join(MODELS)}")
    return name


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the experiments and write the table."""
    parser = argparse.ArgumentParser(prog="python -m tools.studies.initialisation", description=__doc__)
    parser.add_argument("models", nargs="*", type=_known_model, help="models to train again (default: multi_task)")
    models: list[str] = parser.parse_args(arguments).models or ["multi_task"]
    weights = f"recipes.{load_value(str, 'recipe')}.weights"
    settings = {f"{weights}.source": "none", f"+{weights}.allow_random": "true"}
    targets = [f"evaluate@{model}" for model in models]
    files = [f"metrics/evaluate/{model}.json" for model in models]
    random = run_experiment(RANDOM, settings, targets)
    page = initialisation_page(read_metrics(files), read_metrics(files, random), models)
    Path("reports/initialisation.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
