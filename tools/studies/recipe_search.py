"""How the recipe `quick` was chosen: candidates compared on validation alone, with the same effort for both models.

Each candidate of `recipe_search.yaml` and each seed is one DVC experiment that trains the multi-task baseline and the
hybrid, and evaluates nothing: the test split has no part in it. `reports/recipe_search.md` is the result.
"""

from __future__ import annotations

import argparse
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import pandas as pd
from ruamel.yaml import YAML

from aerofuse.common.markdown import markdown_table
from aerofuse.plotting.wording import METRICS, write_value
from tools.studies.experiments import git, run_experiment

logger = logging.getLogger(__name__)

CANDIDATES = Path(__file__).with_suffix(".yaml")
# The last stage of each model, and the stage of the pipeline that runs it.
TRAINED = {
    "multi-task": ("train_multi_task", "train_baseline@multi_task"),
    "hybrid": ("train_stage_c", "train_hybrid@stage_c"),
}
SHOWN = ("score", "type_top1", "airline_top1", "clarity_mae", "block_mae")


@dataclass(frozen=True)
class SearchOutcome:
    """What one candidate reached on validation, a mean over seeds: per model the metrics of its best epoch."""

    name: str
    validation: Mapping[str, Mapping[str, float]]

    @property
    def score(self) -> float:
        """Return what candidates are chosen by: the mean score of both models."""
        return mean(metrics["score"] for metrics in self.validation.values())


def load_candidates(path: Path = CANDIDATES) -> dict[str, dict[str, object]]:
    """Return the settings of each candidate, by its name."""
    return {name: dict(settings) for name, settings in YAML(typ="safe").load(path.read_text(encoding="utf-8")).items()}


def try_candidate(name: str, settings: Mapping[str, object], seeds: Sequence[int]) -> SearchOutcome:
    """Train both models with changed parameters, once per seed."""
    found: dict[str, list[Mapping[str, float]]] = {model: [] for model in TRAINED}
    for seed in seeds:
        experiment = f"search-{name.replace(' ', '-')}-seed{seed}"
        revision = run_experiment(experiment, {**settings, "seed": seed}, [target for _, target in TRAINED.values()])
        for model, (stage, _) in TRAINED.items():
            found[model].append(best_epoch(git("show", f"{revision}:plots/history/{stage}.csv")))
    return SearchOutcome(
        name, {model: {metric: mean(one[metric] for one in runs) for metric in SHOWN} for model, runs in found.items()}
    )


def best_epoch(history: str) -> Mapping[str, float]:
    """Return the metrics of the epoch with the highest score, from the text of a history."""
    epochs = pd.read_csv(io.StringIO(history)).to_dict("records")
    return {str(name): float(value) for name, value in max(epochs, key=lambda epoch: epoch["score"]).items()}


def search_page(outcomes: Sequence[SearchOutcome], seeds: Sequence[int]) -> str:
    """Write the outcomes as Markdown, the best first."""
    units = {"score": ("score", "")} | {metric: METRICS[metric] for metric in SHOWN[1:]}
    rows = [
        [one.name, f"{one.score:.4f}", model, *(write_value(metrics[metric], units[metric][1]) for metric in SHOWN)]
        for one in sorted(outcomes, key=lambda one: one.score, reverse=True)
        for model, metrics in one.validation.items()
    ]
    header = ["candidate", "mean score", "model", *(units[metric][0] for metric in SHOWN)]
    of_seeds = (
        f"On the validation split, best epoch of each training, mean over the seeds {', '.join(map(str, seeds))}."
    )
    return f"{markdown_table(header, rows, 'lrl' + 'r' * len(SHOWN))}\n\n{of_seeds}\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the candidates and write the table."""
    candidates = load_candidates()
    parser = argparse.ArgumentParser(prog="python -m tools.studies.recipe_search", description=__doc__)
    parser.add_argument("--candidates", nargs="+", choices=list(candidates), default=list(candidates))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    outcomes = []
    for name in options.candidates:
        outcomes.append(try_candidate(name, candidates[name], options.seeds))
        page = search_page(outcomes, options.seeds)  # what is known by now, in case the rest fails
        Path("reports/recipe_search.md").write_text(page, encoding="utf-8")
        logger.info("%s\n%s", name, page)


if __name__ == "__main__":
    main()
