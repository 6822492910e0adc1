"""A model as a program that runs without Aerofuse: ONNX, or torch's own .pt2.

Its input `images` is uint8 RGB [batch, 3, height, width]. Its outputs are calibrated probabilities of the classes and
the values of clarity and block, and of a package how unfamiliar a photo is. The file holds the class names and the
preprocessing (docs/predict.md).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from aerofuse.cli.arguments import add_model_option
from aerofuse.inference.export import FILES, export_program, require_onnx, write_onnx, write_torch
from aerofuse.inference.package import load_package
from aerofuse.inference.unfamiliarity import load_unfamiliarity

_EXAMPLES = """examples:
  aerofuse export --format onnx
  aerofuse export --format torch --model models/multi_task --output exported"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the subcommand takes."""
    parser.description, parser.epilog = __doc__, _EXAMPLES
    parser.add_argument("--format", choices=FILES, required=True, help="onnx needs: pip install 'aerofuse[export]'")
    add_model_option(parser)
    parser.add_argument("--output", type=Path, default=Path(), metavar="DIR", help="folder to write to (default: here)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the file and print its path and size."""
    if options.format == "onnx":
        require_onnx()
    model, record = load_package(options.model)
    console = Console()
    path = options.output / FILES[options.format]
    with console.status("following the model's operations ..."):
        program = export_program(model, record, load_unfamiliarity(options.model, model.num_features))
        write = write_onnx if options.format == "onnx" else write_torch
        write(program, record, path)
    console.print(f"{path} is written: {path.stat().st_size / 1e6:.1f} MB", soft_wrap=True)
    return 0
