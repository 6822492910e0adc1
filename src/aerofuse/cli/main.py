"""The command `aerofuse`: what can be asked without running the pipeline."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from aerofuse.cli import memory


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; a mistake of the user's is one line on stderr and exit status 2."""
    parser = argparse.ArgumentParser(prog="aerofuse", description="Aircraft recognition: questions before and after.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    memory.add_to(commands)
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except ValueError as error:
        sys.stderr.write(f"aerofuse: {error}\n")
        return 2
