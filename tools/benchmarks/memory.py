"""What gradient checkpointing saves and costs, for every family: `make benchmark`.

Peaks are counted on fake tensors, and checked on real ones. Times are real steps, all ways of a network side by side:
every round runs each of them once, between two steps without checkpointing, and a ratio is the median over the rounds.
`reports/benchmarks/` gets a table named
by what it ran on, which is written after each network, and `make readme` puts that of all families into the pages in
docs, and that of the hybrid of recipe `base`.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
from collections.abc import Sequence

import torch
from tqdm.auto import tqdm

from aerofuse.backbones.families import FAMILIES, family_of
from aerofuse.cli.arguments import device_here
from tools.benchmarks.allocator import keep_freed_memory
from tools.benchmarks.goals import check_goals
from tools.benchmarks.hybrid import hybrid_subject, time_planning
from tools.benchmarks.results import CHECKPOINTING, FOLDER, BenchmarkSettings, Results
from tools.benchmarks.side_by_side import machine, measure
from tools.benchmarks.subjects import Subject, backbone_subject, middle_variant

_HYBRID = "hybrid:"
logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the networks, write the table, and say which goals are reached."""
    parser = _parser()
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    precisions = ("float32", "bf16") if options.precision == "both" else (options.precision,)
    try:
        settings = BenchmarkSettings(
            options.image_size, options.count_batch, options.time_batch, options.rounds, options.seconds, precisions
        )
    except ValueError as error:
        parser.error(str(error))
    keep_freed_memory()
    results = Results(machine(options.device), settings)
    # A table of some networks does not take the place of that of all families.
    path = results.path(FOLDER, "-".join(options.networks) or CHECKPOINTING)
    if options.resume and path.is_file():
        results = results.joined(Results.load(path))
    names: Sequence[str] = options.networks or list(FAMILIES)
    missing = [name for name in names if _variant(name) not in results.variants]
    for name in tqdm(missing, unit="network", disable=None):
        results = results.joined(measure(_subject(name, options.image_size, options.device), settings))
        # After each, so that what stops a long run loses one network only.
        results.save(path)
        logger.info("written to %s", path)
    if not options.networks and results.planning is None:
        results = dataclasses.replace(results, planning=time_planning())
    results.save(path)
    for goal in check_goals(results):
        logger.info("%s", goal)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.benchmarks.memory", description=__doc__)
    parser.add_argument(
        "networks",
        nargs="*",
        type=_known,
        help="families, of which the middle variant is measured, variants, or the hybrid of a recipe such as "
        f"{_HYBRID}base (default: all families)",
    )
    parser.add_argument("--image-size", type=int, default=224, metavar="PX", help="side of the images (default: 224)")
    parser.add_argument("--count-batch", type=int, default=8, help="batch whose memory is counted (default: 8)")
    parser.add_argument(
        "--time-batch", type=int, default=8, help="batch that is timed on a CPU (default: 8); on CUDA the one counted"
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds of timing, at least (default: 3)")
    parser.add_argument(
        "--seconds", type=int, default=120, help="what a network is timed for, at least, in more rounds (default: 120)"
    )
    parser.add_argument("--device", type=device_here, default=torch.device("cpu"), help="cpu (default) or cuda")
    parser.add_argument("--precision", choices=["float32", "bf16", "both"], default="both", help="(default: both)")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="keep what today's table of these networks has, and add what it lacks",
    )
    return parser


def _known(name: str) -> str:
    """A type of argument: a family, a variant, or `hybrid:` and a recipe, which is looked up when it is built."""
    if name not in FAMILIES and not name.startswith(_HYBRID):
        try:
            family_of(name)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
    return name


def _variant(name: str) -> str:
    if name.startswith(_HYBRID):
        return f"hybrid of {name.removeprefix(_HYBRID)}"
    return middle_variant(name) if name in FAMILIES else name


def _subject(name: str, image_size_px: int, device: torch.device) -> Subject:
    if name.startswith(_HYBRID):
        return hybrid_subject(name.removeprefix(_HYBRID), image_size_px, device)
    return backbone_subject(_variant(name), image_size_px, device)


if __name__ == "__main__":
    main()
