"""Fusion methods over seeds, as experiments in DVC's queue: `make sweep`.

Each cell of the grid is one DVC experiment over the pipeline as it lies in the working folder, up to the hybrid's
evaluation. `reports/sweep.md` and `reports/sweep.json` are the result.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import get_args

from aerofuse.cli.console import escape_what_stdout_cannot_show
from aerofuse.common.files import write_json
from aerofuse.common.markdown import markdown_table
from aerofuse.common.params import load_section, load_value
from aerofuse.ingest.params import DataParams
from aerofuse.models.fusion import FusionMethod
from aerofuse.plotting.wording import METRICS, write_value
from tools.studies.experiments import (
    FAILED,
    HEADLINES,
    MISSING,
    QUEUED,
    RUNNING,
    SUCCESS,
    find_experiments,
    forget,
    git,
    put,
    read_log,
    read_metrics,
    read_queue,
    run_queued,
)

METHODS = get_args(FusionMethod)
TARGET = "evaluate@hybrid"  # the baselines do not depend on the fusion method
INPUTS = ("dvc.yaml", "params.yaml", "src", "stages", "data/weights")  # of the pipeline, in git
TRAINED, EVALUATED = "metrics/train/train_stage_c.json", "metrics/evaluate/hybrid.json"
_LOG_LINES = 10
SCORE = "score"  # of the validation split; the best checkpoint has the highest
_COLUMNS = {SCORE: ("validation score", ""), **{name: METRICS[name] for name in HEADLINES}}
_WHAT_TO_DO = {
    FAILED: "`dvc queue logs {name}` shows all that it printed; the same command runs it again",
    QUEUED: "no worker of DVC's stays to run it; .dvc/tmp/exps/celery/*.out says why",
    RUNNING: "it was cut off with DVC's worker; `dvc queue kill {name}`, then the same command runs it again",
    MISSING: "it was taken out of DVC's queue; the same command runs it again",
}


@dataclass(frozen=True)
class Cell:
    """One experiment of the grid; its name says of which code and parameters."""

    fusion_method: str
    seed: int
    name: str


@dataclass(frozen=True)
class Outcome:
    """How an experiment ended: its status in DVC's queue, and what it found or, where it failed, printed last.

    `metrics` are the hybrid's on the test split, with its validation score as `score`.
    """

    cell: Cell
    status: str
    metrics: Mapping[str, float]
    log: tuple[str, ...] = ()


@dataclass(frozen=True)
class Summary:
    """A fusion method's metrics over its `n` seeds that are done; one seed has no standard deviations."""

    fusion_method: str
    n: int
    means: Mapping[str, float]
    deviations: Mapping[str, float]


def grid(methods: Sequence[str], seeds: Sequence[int], code: str) -> list[Cell]:
    """Pair every method with every seed, one seed of all methods first; `code` is what `fingerprint` says."""
    return [
        Cell(method, seed, f"sweep-{code}-{method}-seed{seed}")
        for seed in dict.fromkeys(seeds)
        for method in dict.fromkeys(methods)
    ]


def fingerprint() -> str:
    """Return eight letters that differ where the pipeline, its parameters, its code or its photos differ.

    What git tracks counts as it lies in the working folder, committed or not, as it does for DVC's queue.
    """
    workspace = git("stash", "create") or "HEAD"  # a commit of the tracked files that nothing refers to
    digest = hashlib.sha256(git("ls-tree", "-r", workspace, *INPUTS).encode())
    for line in _photos():
        digest.update(line.encode())
    return digest.hexdigest()[:8]


def _photos() -> Iterator[str]:
    """Yield the user's photos by name, size and time, as DVC tells whether a file may have changed."""
    for named in load_section(DataParams, "data").inputs.values():
        for path in [named, *sorted(named.rglob("*"))]:
            if path.is_file():
                found = path.stat()
                yield f"{path.as_posix()} {found.st_size} {found.st_mtime_ns}\n"


def queue_missing(cells: Sequence[Cell]) -> None:
    """Queue the experiments that are neither done, nor waiting, nor running."""
    statuses = read_queue([cell.name for cell in cells]).statuses
    for cell in cells:
        if statuses[cell.name] == FAILED:
            forget(cell.name)
        if statuses[cell.name] in (FAILED, MISSING):
            put(cell.name, {"fusion_method": cell.fusion_method, "seed": cell.seed}, [TARGET])


def collect(cells: Sequence[Cell], statuses: Mapping[str, str]) -> list[Outcome]:
    """Return what the experiments have found, and of those that failed what they printed last."""
    revisions = find_experiments("sweep-*")
    outcomes = []
    for cell in cells:
        status, metrics, log = statuses[cell.name], {}, []
        if status == SUCCESS:
            files = read_metrics([TRAINED, EVALUATED], revisions[cell.name])
            metrics = {SCORE: files[TRAINED]["train_stage_c"]["score"], **files[EVALUATED]["hybrid"]}
        elif status == FAILED:
            log = read_log(cell.name)[-_LOG_LINES:]
        outcomes.append(Outcome(cell, status, metrics, tuple(log)))
    return outcomes


def summarise(outcomes: Sequence[Outcome]) -> list[Summary]:
    """Summarise each method that has a result, the one with the best mean validation score first."""
    summaries = []
    for method in dict.fromkeys(outcome.cell.fusion_method for outcome in outcomes):
        found = [outcome.metrics for outcome in outcomes if outcome.cell.fusion_method == method and outcome.metrics]
        if not found:
            continue
        # A task that the data has no labels of has no metrics.
        values = {name: [metrics[name] for metrics in found] for name in _COLUMNS if name in found[0]}
        means = {name: mean(each) for name, each in values.items()}
        deviations = {name: stdev(each) for name, each in values.items() if len(each) > 1}
        summaries.append(Summary(method, len(found), means, deviations))
    return sorted(summaries, key=lambda summary: summary.means[SCORE], reverse=True)


def sweep_page(outcomes: Sequence[Outcome], recipe: str) -> str:
    """Show the methods, every experiment, and what to do about those that are not done."""
    not_done = [outcome for outcome in outcomes if outcome.status != SUCCESS]
    parts = [
        "# Fusion methods over seeds",
        f"Recipe `{recipe}`; {len(outcomes) - len(not_done)} of {len(outcomes)} experiments are done. The hybrid's "
        "metrics on the test split, means over n training seeds ± sample standard deviations; methods are ranked by "
        "the score on the validation split, so that the test split chooses nothing.",
        _methods_table(outcomes),
        "## Experiments",
        _experiments_table(outcomes),
    ]
    for outcome in not_done:
        name = outcome.cell.name
        parts.append(f"**{name}: {outcome.status.lower()}**; {_WHAT_TO_DO[outcome.status].format(name=name)}.")
        if outcome.log:
            parts.append("\n".join(["```", *outcome.log, "```"]))
    return "\n\n".join(parts) + "\n"


def _methods_table(outcomes: Sequence[Outcome]) -> str:
    rows = []
    for summary in summarise(outcomes):
        row = [summary.fusion_method, str(summary.n)]
        for name, (_, unit) in _COLUMNS.items():
            shown = write_value(summary.means.get(name), unit)
            if name in summary.deviations:
                shown += f" ± {write_value(summary.deviations[name], unit)}"
            row.append(shown)
        rows.append(row)
    return markdown_table(["fusion method", "n", *_headings()], rows, "lr" + "r" * len(_COLUMNS))


def _experiments_table(outcomes: Sequence[Outcome]) -> str:
    rows = []
    for outcome in outcomes:
        values = [write_value(outcome.metrics.get(name), unit) for name, (_, unit) in _COLUMNS.items()]
        cell = outcome.cell
        rows.append([cell.name, cell.fusion_method, str(cell.seed), outcome.status.lower(), *values])
    return markdown_table(
        ["experiment", "fusion method", "seed", "status", *_headings()], rows, "llrl" + "r" * len(_COLUMNS)
    )


def _headings() -> list[str]:
    return [heading for heading, _ in _COLUMNS.values()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sweep, or go on with it; the exit status: 0 all done, 1 some not, 2 it could not run, 130 Ctrl-C."""
    escape_what_stdout_cannot_show()
    options = _parse(arguments)
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("tools").setLevel(logging.INFO)
    logging.getLogger("kombu").setLevel(logging.ERROR)  # it warns that DVC's queue, which lies in files, has no host
    try:
        cells = grid(options.fusion_method, options.seeds, fingerprint())
        queue_missing(cells)
        outcomes = collect(cells, run_queued([cell.name for cell in cells], options.jobs))
        page = sweep_page(outcomes, load_value(str, "recipe"))
    except (RuntimeError, ValueError, FileNotFoundError) as error:
        sys.stderr.write(f"sweep: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(
            "\nsweep: the experiments go on without this command, and the same command waits for them again.\n"
            "`dvc queue status` shows them, `dvc queue stop --kill` stops them.\n"
        )
        return 130
    reports = Path("reports")
    content = {
        "experiments": [asdict(outcome) for outcome in outcomes],
        "fusion_methods": [asdict(summary) for summary in summarise(outcomes)],
    }
    write_json(reports / "sweep.json", content)
    (reports / "sweep.md").write_text(page, encoding="utf-8")
    sys.stdout.write(page)
    return int(any(outcome.status != SUCCESS for outcome in outcomes))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.studies.sweep", description=__doc__)
    parser.add_argument("--fusion-method", nargs="+", choices=METHODS, default=METHODS, help="default: all")
    parser.add_argument(
        "--seeds", nargs="+", type=_at_least(0), default=[0, 1], help="of training; the split stays (default: 0 1)"
    )
    parser.add_argument("--jobs", type=_at_least(1), default=1, help="experiments at the same time (default: 1)")
    return parser.parse_args(arguments)


def _at_least(least: int) -> Callable[[str], int]:
    def check(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not allowed: a whole number of at least {least}")
        return int(text)

    return check


if __name__ == "__main__":
    sys.exit(main())
