"""Measure on a GPU that is there for minutes what the tables of a CPU cannot show: `python -m tools.gpu_evidence`."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from aerofuse.cli.arguments import device_here
from tools.benchmarks.side_by_side import machine
from tools.gpu_evidence.evidence import Evidence, describe_machine
from tools.gpu_evidence.parts import PARTS
from tools.gpu_evidence.sizes import EvidenceSizes

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one part, or all steps for which there is time; return 1 where a step failed."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.device.type == "cpu" and not options.rehearse:
        parser.error("a CPU takes days for networks of this size; add --rehearse for small ones")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    ends = time.monotonic() + 60 * options.minutes
    sizes = EvidenceSizes.rehearsal(options.device) if options.rehearse else EvidenceSizes.full(options.device)
    ran_on = describe_machine(options.device)
    prefix = "rehearsal" if options.rehearse else "gpu"
    failed: list[str] = []
    for part in PARTS if options.part is None else [PARTS[options.part - 1]]:
        path = options.out / f"{machine(options.device).name(f'{prefix}-{part.name}')}.json"
        evidence = Evidence(path, ran_on)
        evidence.gather(part.steps(sizes), ends)
        logger.info("%s: written to %s", part.name, path)
        if evidence.left_out:
            logger.info("%s: no time left for %s", part.name, ", ".join(evidence.left_out))
        failed += [f"{part.name}: {name}" for name in evidence.failed]
    if failed:
        logger.error("failed: %s", "; ".join(failed))
    return int(bool(failed))


def _parser() -> argparse.ArgumentParser:
    parts = "\n".join(
        f"  {number}  {part.name}, {part.minutes:g} min: {part.summary}" for number, part in enumerate(PARTS, start=1)
    )
    parser = argparse.ArgumentParser(
        prog="python -m tools.gpu_evidence",
        description=f"{__doc__}\n\nParts, the most important first, and how long they take on a large GPU:\n{parts}",
        epilog="Each part writes one JSON file, named by what it ran on, after every step. What takes longer than the "
        "time\nthat is left is not begun, and the file names it. `make readme` puts files in reports/benchmarks into "
        "docs/planner.md.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the files, one per part")
    parser.add_argument("--minutes", type=float, default=9.0, help="when everything has to be over (default: 9)")
    parser.add_argument(
        "--part", type=int, choices=range(1, len(PARTS) + 1), metavar="K", help="run this part only (default: all)"
    )
    parser.add_argument("--device", type=device_here, default="cuda", help="cuda (default), or cpu to rehearse")
    parser.add_argument("--rehearse", action="store_true", help="small networks and images, to see that it all works")
    return parser


if __name__ == "__main__":
    sys.exit(main())
