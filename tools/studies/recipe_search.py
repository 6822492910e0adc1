"""How the recipe `quick` was chosen: candidates compared on validation alone, with the same effort for both models.

Each candidate of `recipe_search.yaml` and each seed is one DVC experiment that trains the multi-task baseline and the
hybrid, and evaluates nothing: the test split has no part in it. `reports/recipe_search.md` and
`reports/recipe_search.json` are the result; a second run adds to it, so that only the best need more seeds.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

import pandas as pd
from ruamel.yaml import YAML

from aerofuse.common.files import write_json
from aerofuse.common.markdown import markdown_table
from aerofuse.plotting.wording import write_value
from aerofuse.tuning.repository import git
from tools.studies.experiments import run_experiment

logger = logging.getLogger(__name__)

CANDIDATES = Path(__file__).with_suffix(".yaml")
RESULT = Path("reports/recipe_search.json")
# The trainings, by what they train, and what is kept of each.
TRAINED = {"multi-task": "train_multi_task", "hybrid, phase A": "train_stage_a", "hybrid": "train_stage_c"}
CHOSEN_BY = ("multi-task", "hybrid")
TARGETS = ("train_baseline@multi_task", "train_hybrid@stage_c")
METRICS = ("score", "type_top1", "airline_top1", "clarity_mae", "block_mae")
_COLUMNS = {
    "multi-task type top-1": ("multi-task", "type_top1"),
    "phase A type top-1": ("hybrid, phase A", "type_top1"),
    "hybrid type top-1": ("hybrid", "type_top1"),
    "hybrid clarity MAE": ("hybrid", "clarity_mae"),
    "hybrid block MAE": ("hybrid", "block_mae"),
}

# By candidate, seed and training: the metrics of its best epoch on validation.
Outcomes = dict[str, dict[str, dict[str, dict[str, float]]]]


def load_candidates(path: Path = CANDIDATES) -> dict[str, dict[str, object]]:
    """Return the settings of each candidate, by its name."""
    return {name: dict(settings) for name, settings in YAML(typ="safe").load(path.read_text(encoding="utf-8")).items()}


def try_candidate(name: str, settings: Mapping[str, object], seed: int) -> dict[str, dict[str, float]]:
    """Train both models with changed parameters, and return the best epoch of each training in `TRAINED`."""
    experiment = f"search-{name.replace(' ', '-')}-seed{seed}"
    revision = run_experiment(experiment, {**settings, "seed": seed}, TARGETS)
    return {model: best_epoch(git("show", f"{revision}:plots/history/{stage}.csv")) for model, stage in TRAINED.items()}


def best_epoch(history: str) -> dict[str, float]:
    """Return the metrics of the epoch with the highest score, from the text of a history."""
    epochs = pd.read_csv(io.StringIO(history)).to_dict("records")
    best = max(epochs, key=lambda epoch: epoch["score"])
    return {name: float(best[name]) for name in METRICS}


def mean_score(runs: Mapping[str, Mapping[str, Mapping[str, float]]]) -> float:
    """Return what candidates are chosen by: the mean score of both models over a candidate's seeds."""
    return mean(trained[model]["score"] for trained in runs.values() for model in CHOSEN_BY)


def search_page(outcomes: Outcomes) -> str:
    """Write the outcomes as Markdown, a row each: those of most seeds first, and of these the best."""
    rows = []
    for name, runs in sorted(outcomes.items(), key=lambda item: (-len(item[1]), -mean_score(item[1]))):
        means = {
            (model, metric): mean(trained[model][metric] for trained in runs.values())
            for model, metric in _COLUMNS.values()
        }
        values = [write_value(value, "%" if metric == "type_top1" else "") for (_, metric), value in means.items()]
        rows.append([name, ", ".join(sorted(runs)), f"{mean_score(runs):.4f}", *values])
    table = markdown_table(["candidate", "seeds", "mean score", *_COLUMNS], rows, "llr" + "r" * len(_COLUMNS))
    return (
        f"{table}\n\nOn the validation split: the best epoch of each training, the mean over the seeds. "
        "The mean score is that of the multi-task model and the hybrid; candidates are compared over the same seeds.\n"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the candidates and write the table."""
    candidates = load_candidates()
    parser = argparse.ArgumentParser(prog="python -m tools.studies.recipe_search", description=__doc__)
    parser.add_argument("--candidates", nargs="+", choices=list(candidates), default=list(candidates))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--add", action="store_true", help="keep what the result holds; default: begin a new one")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    outcomes: Outcomes = json.loads(RESULT.read_text(encoding="utf-8")) if options.add and RESULT.is_file() else {}
    for name in options.candidates:
        for seed in options.seeds:
            outcomes.setdefault(name, {})[str(seed)] = try_candidate(name, candidates[name], seed)
            write_json(RESULT, outcomes)  # what is known by now, in case the rest fails
            page = search_page(outcomes)
            RESULT.with_suffix(".md").write_text(page, encoding="utf-8")
            logger.info("%s, seed %d\n%s", name, seed, page)


if __name__ == "__main__":
    main()
