"""The command `aerofuse`: predictions, and what can be asked without running the pipeline."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from aerofuse.cli.console import escape_what_stdout_cannot_show
from aerofuse.common.threads import spin_briefly_while_waiting

# command, which is a module of this package: what it does
COMMANDS = {
    "predict": "type, airline, clarity and block of photos",
    "export": "a model as ONNX, or as a torch program",
    "tune": "a grid or a search over parameters, on one machine or on many",
    "review": "labels that look wrong, and photos worth labelling next",
    "memory": "does a training step fit, with which plan, and how much slower?",
    "demo": "a page in the browser to try a model, and to ask what training takes",
    "mlflow": "what was logged while MLflow was away: see it, send it; a model for `mlflow models serve`",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; a mistake of the user's is one line on stderr and exit status 2."""
    spin_briefly_while_waiting()  # the command's module imports torch
    escape_what_stdout_cannot_show()
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(prog="aerofuse", description="Aircraft recognition: answers, and what they cost.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, does in COMMANDS.items():
        command = commands.add_parser(name, help=does, formatter_class=argparse.RawDescriptionHelpFormatter)
        if name in arguments[:1]:
            # The others stay unloaded: what they import takes longer than a prediction.
            module = importlib.import_module(f"aerofuse.cli.{name}")
            module.add_arguments(command)
    options = parser.parse_args(arguments)
    try:
        status = int(options.run(options))
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Whoever read the output has left, as `head` does; what is still buffered goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError) as error:
        sys.stderr.write(f"aerofuse: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
