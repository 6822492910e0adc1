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
from dataclasses import asdict
from pathlib import Path
from typing import get_args

from aerofuse.common.files import write_json
from aerofuse.common.params import load_section, load_value
from aerofuse.ingest.params import DataParams
from aerofuse.models.fusion import FusionMethod
from tools.studies import dvc_queue
from tools.studies.experiments import find_experiments, git, read_metrics
from tools.studies.sweep_page import SCORE, Cell, Outcome, summarise, sweep_page

METHODS = get_args(FusionMethod)
TARGET = "evaluate@hybrid"  # the baselines do not depend on the fusion method
INPUTS = ("dvc.yaml", "params.yaml", "src", "stages", "data/weights")  # of the pipeline, in git
TRAINED, EVALUATED = "metrics/train/train_stage_c.json", "metrics/evaluate/hybrid.json"
_LOG_LINES = 10

logger = logging.getLogger(__name__)


def grid(methods: Sequence[str], seeds: Sequence[int], code: str) -> list[Cell]:
    """Every method with every seed, one seed of all methods first; `code` is what `fingerprint` says."""
    return [
        Cell(method, seed, f"sweep-{code}-{method}-seed{seed}")
        for seed in dict.fromkeys(seeds)
        for method in dict.fromkeys(methods)
    ]


def fingerprint() -> str:
    """Eight letters that differ where the pipeline, its parameters, its code or its photos differ.

    What git tracks counts as it lies in the working folder, committed or not, as it does for DVC's queue.
    """
    workspace = git("stash", "create") or "HEAD"  # a commit of the tracked files that nothing refers to
    digest = hashlib.sha256(git("ls-tree", "-r", workspace, *INPUTS).encode())
    for line in _photos():
        digest.update(line.encode())
    return digest.hexdigest()[:8]


def _photos() -> Iterator[str]:
    """The user's photos by name, size and time, as DVC tells whether a file may have changed."""
    data = load_section(DataParams, "data")
    if data.source == "synthetic":
        return
    root = Path(data.root)
    for path in [Path(data.labels), root, *sorted(root.rglob("*"))]:
        if path.is_file():
            found = path.stat()
            yield f"{path.as_posix()} {found.st_size} {found.st_mtime_ns}\n"


def queue_missing(cells: Sequence[Cell]) -> None:
    """Queue the experiments that are neither done, nor waiting, nor running."""
    statuses = dvc_queue.read_queue([cell.name for cell in cells]).statuses
    for cell in cells:
        if statuses[cell.name] == dvc_queue.FAILED:
            dvc_queue.forget(cell.name)
        if statuses[cell.name] in (dvc_queue.FAILED, dvc_queue.MISSING):
            dvc_queue.put(cell.name, {"fusion_method": cell.fusion_method, "seed": cell.seed}, [TARGET])


def collect(cells: Sequence[Cell], statuses: Mapping[str, str]) -> list[Outcome]:
    """What the experiments have found, and of those that failed what they printed last."""
    revisions = find_experiments("sweep-*")
    outcomes = []
    for cell in cells:
        status, metrics, log = statuses[cell.name], {}, []
        if status == dvc_queue.SUCCESS:
            files = read_metrics([TRAINED, EVALUATED], revisions[cell.name])
            metrics = {SCORE: files[TRAINED]["train_stage_c"]["score"], **files[EVALUATED]["hybrid"]}
        elif status == dvc_queue.FAILED:
            log = dvc_queue.read_log(cell.name)[-_LOG_LINES:]
        outcomes.append(Outcome(cell, status, metrics, tuple(log)))
    return outcomes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sweep, or go on with it; the exit status: 0 all done, 1 some not, 2 it could not run, 130 Ctrl-C."""
    options = _parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        cells = grid(options.fusion_method, options.seeds, fingerprint())
        queue_missing(cells)
        outcomes = collect(cells, dvc_queue.run_queued([cell.name for cell in cells], options.jobs))
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
    return int(any(outcome.status != dvc_queue.SUCCESS for outcome in outcomes))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.studies.sweep", description=__doc__)
    parser.add_argument("--fusion-method", nargs="+", choices=METHODS, default=METHODS, help="default: all")
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=_at_least(0),
        default=[0, 1],
        help="of training; the split stays (default: 0 1)",
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
