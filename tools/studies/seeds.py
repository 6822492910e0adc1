"""The hybrid against the multi-task baseline for several training seeds: `make seeds`.

Each seed is one DVC experiment over the committed code and data, so that a gain can be told from the luck of one
training. `reports/seeds.md` and `reports/seeds.json` are the result.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev

from scipy import stats

from aerofuse.common.markdown import markdown_table
from aerofuse.common.params import load_value
from aerofuse.plotting.wording import METRICS, MODELS, write_value
from aerofuse.tuning.repository import read_metrics
from tools.studies.experiments import Metrics, run_experiment

BASELINE, HYBRID = "multi_task", "hybrid"
FILES = (*(f"metrics/evaluate/{model}.json" for model in (BASELINE, HYBRID)), "metrics/compare.json")
SHOWN = ("type_top1", "sharp_type_top1", "type_top5", "airline_top1", "clarity_mae", "block_mae")


@dataclass(frozen=True)
class SeedResult:
    """Both models' test metrics for one seed; `gain_low` and `gain_high` bound the gain over its images."""

    seed: int
    multi_task: Mapping[str, float]
    hybrid: Mapping[str, float]
    gain: float
    gain_low: float
    gain_high: float


@dataclass(frozen=True)
class SeedSummary:
    """The mean gain over seeds with Student's interval, which the few seeds make wide."""

    results: tuple[SeedResult, ...]
    mean_gain: float
    low: float
    high: float


def summarise(results: Sequence[SeedResult], confidence_level: float = 0.95) -> SeedSummary:
    """Return mean and interval of the gain. Raises `ValueError` for fewer than two seeds."""
    if len(results) < 2:
        raise ValueError(f"{len(results)} seed(s) give no interval; name two or more")
    gains = [result.gain for result in results]
    half = float(stats.t.ppf((1 + confidence_level) / 2, len(gains) - 1)) * stdev(gains) / math.sqrt(len(gains))
    return SeedSummary(tuple(results), mean(gains), mean(gains) - half, mean(gains) + half)


def read_result(seed: int, metrics: Metrics) -> SeedResult:
    """Read one seed's result from the metrics files of its experiment."""
    found = {model: metrics[f"metrics/evaluate/{model}.json"][model] for model in (BASELINE, HYBRID)}
    shown = {model: {name: its[name] for name in SHOWN if name in its} for model, its in found.items()}
    compared = metrics["metrics/compare.json"]["compare"]
    return SeedResult(
        seed, shown[BASELINE], shown[HYBRID], compared["gain_type_top1"], compared["gain_low"], compared["gain_high"]
    )


def run_seeds(seeds: Sequence[int]) -> list[SeedResult]:
    """Return the result of each seed: the workspace's own, and one experiment `seed-N` for every other."""
    own = load_value(int, "seed")
    results = []
    for seed in seeds:
        revision = None if seed == own else run_experiment(f"seed-{seed}", {"seed": seed}, ["compare"])
        results.append(read_result(seed, read_metrics(FILES, revision)))
    return results


def seeds_page(summary: SeedSummary) -> str:
    """Write the results as Markdown: each seed's gain, then both models' metrics over the seeds."""
    rows = []
    for result in summary.results:
        gain, low, high = (f"{100 * value:+.2f}" for value in (result.gain, result.gain_low, result.gain_high))
        types = [write_value(metrics["type_top1"], "%") for metrics in (result.multi_task, result.hybrid)]
        rows.append([str(result.seed), *types, gain, f"{low} to {high}"])
    header = ["seed", "multi-task type top-1", "hybrid type top-1", "gain, points", "95 % interval over test images"]
    average, low, high = (f"{100 * value:+.2f}" for value in (summary.mean_gain, summary.low, summary.high))
    return (
        "\n\n".join(
            [
                markdown_table(header, rows, "lrrrr"),
                f"Mean gain {average} points, 95 % interval over seeds {low} to {high} (Student's t).",
                f"Mean and standard deviation over the {len(rows)} seeds:",
                _metrics_table(summary.results),
            ]
        )
        + "\n"
    )


def _metrics_table(results: Sequence[SeedResult]) -> str:
    rows = []
    for name in SHOWN:
        label, unit = METRICS[name]
        cells = []
        for values in ([one.multi_task.get(name) for one in results], [one.hybrid.get(name) for one in results]):
            known = [value for value in values if value is not None]
            spread = write_value(stdev(known), unit).split()[0] if len(known) > 1 else ""
            cells.append(f"{write_value(mean(known), unit)} ± {spread}" if spread else write_value(None, unit))
        rows.append([label, *cells])
    return markdown_table(["metric", MODELS[BASELINE], MODELS[HYBRID]], rows, "lrr")


def main() -> None:
    """Run the experiments that are needed and write the summary."""
    parser = argparse.ArgumentParser(prog="python -m tools.studies.seeds", description=__doc__)
    parser.add_argument("seeds", type=int, nargs="+", help="training seeds; data and test split stay the same")
    summary = summarise(run_seeds(parser.parse_args().seeds))
    reports = Path("reports")
    (reports / "seeds.json").write_text(json.dumps(asdict(summary), indent=2) + "\n", encoding="utf-8")
    (reports / "seeds.md").write_text(seeds_page(summary), encoding="utf-8")


if __name__ == "__main__":
    main()
