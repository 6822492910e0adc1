"""A page in the browser: drop a photo and see the answer, or ask what a training step needs.

Only this machine can open it. It works offline and sends nothing anywhere.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from aerofuse.cli.arguments import add_model_option, at_least
from aerofuse.demo.launch import run_demo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the subcommand takes."""
    parser.description = __doc__
    add_model_option(parser)
    prepared = Path("data/prepared")
    text = "prepared photos, if any (default: %(default)s)"
    parser.add_argument("--examples", type=Path, default=prepared, metavar="DIR", help=text)
    parser.add_argument("--port", type=at_least(1), default=7860, metavar="N", help="(default: %(default)s)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve the page until Ctrl+C."""
    run_demo(options.model, options.examples, options.port, _say)
    return 0


def _say(address: str) -> None:
    sys.stdout.write(f"{address}  (Ctrl+C ends it)\n")
    sys.stdout.flush()
