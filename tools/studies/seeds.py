"""The hybrid's gain over the multi-task baseline for several seeds: `make seeds`.

Each seed is one DVC experiment over the committed code and data, so that a gain can be told from the luck of one
training. `reports/seeds.md` and `reports/seeds.json` are the result.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from aerofuse.common.params import load_value
from tools.studies.experiments import Metrics, read_metrics, run_experiment

BASELINE, HYBRID = "multi_task", "hybrid"
FILES = (*(f"metrics/evaluate/{model}.json" for model in (BASELINE, HYBRID)), "metrics/compare.json")


@dataclass(frozen=True)
class SeedResult:
    """Type top-1 on the test split for one seed; `gain_low` and `gain_high` bound the gain over its images."""

    seed: int
    multi_task: float
    hybrid: float
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
    gains = np.array([result.gain for result in results])
    half = stats.t.ppf((1 + confidence_level) / 2, len(gains) - 1) * gains.std(ddof=1) / math.sqrt(len(gains))
    mean = float(gains.mean())
    return SeedSummary(tuple(results), mean, mean - float(half), mean + float(half))


def read_result(seed: int, metrics: Metrics) -> SeedResult:
    """Read one seed's result from the metrics files of its experiment."""
    scores = {model: metrics[f"metrics/evaluate/{model}.json"][model]["type_top1"] for model in (BASELINE, HYBRID)}
    compared = metrics["metrics/compare.json"]["compare"]
    return SeedResult(
        seed, scores[BASELINE], scores[HYBRID], compared["gain_type_top1"], compared["gain_low"], compared["gain_high"]
    )


def run_seeds(seeds: Sequence[int]) -> list[SeedResult]:
    """Return the result of each seed: the workspace's own, and one experiment `seed-N` for every other."""
    own = load_value(int, "seed")
    revisions = {seed: None if seed == own else run_experiment(f"seed-{seed}", {"seed": seed}) for seed in seeds}
    return [read_result(seed, read_metrics(FILES, revision)) for seed, revision in revisions.items()]


def seeds_page(summary: SeedSummary) -> str:
    """Write the results as Markdown."""
    lines = [
        "| seed | multi-task type top-1 | hybrid type top-1 | gain, points | 95 % interval over test images |",
        "|---|---|---|---|---|",
    ]
    for result in summary.results:
        gain, low, high = (100 * value for value in (result.gain, result.gain_low, result.gain_high))
        lines.append(
            f"| {result.seed} | {result.multi_task:.2%} | {result.hybrid:.2%} "
            f"| {gain:+.2f} | {low:+.2f} to {high:+.2f} |"
        )
    mean, low, high = (100 * value for value in (summary.mean_gain, summary.low, summary.high))
    lines += ["", f"Mean gain {mean:+.2f} points, 95 % interval over seeds {low:+.2f} to {high:+.2f} (Student's t)."]
    return "\n".join(lines) + "\n"


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
