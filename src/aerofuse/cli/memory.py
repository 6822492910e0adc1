"""`aerofuse memory`: does a training step fit, with which plan, and how much slower is it?"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from aerofuse.checkpointing.budget import format_bytes, parse_bytes
from aerofuse.plotting.plan import draw_plan
from aerofuse.training.step_question import StepAnswer, StepQuestion

_EXAMPLES = """examples:
  aerofuse memory convnext_base
  aerofuse memory convnext_base swin_base_patch4_window7_224 --batch-size 16 --precision bf16 --gpu-memory 20GiB

Nothing of the model's size is allocated: bytes are counted on fake tensors. Times are estimates for a large GPU;
on your own device, plan_checkpointing measures them (docs/planner.md)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the subcommand takes."""
    parser.description, parser.epilog = __doc__, _EXAMPLES
    parser.add_argument("backbones", nargs="+", metavar="BACKBONE", help="one backbone, or the two of a hybrid")
    parser.add_argument("--image-size", type=int, default=224, metavar="PX", help="side of the images (default: 224)")
    parser.add_argument("--frames", type=int, default=16, help="frames of a clip, for swin3d (default: 16)")
    parser.add_argument("--batch-size", type=int, default=16, help="images per step (default: 16)")
    parser.add_argument("--precision", choices=["float32", "bf16"], default="float32", help="(default: float32)")
    parser.add_argument("--gpu-memory", type=parse_bytes, metavar="SIZE", help="what there is, such as 20GiB")
    parser.add_argument("--fusion-method", default="concat", help="of a hybrid (default: concat)")
    parser.add_argument("--show-plan", action="store_true", help="print what each unit saves under the chosen plan")
    parser.add_argument("--picture", type=Path, metavar="PNG", help="draw the plan that --gpu-memory leads to")
    parser.add_argument("--save-plan", type=Path, metavar="JSON", help="write that plan, for training to follow")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the table; status 1 where no plan fits into the named memory."""
    if options.gpu_memory is None and (options.picture or options.save_plan):
        raise ValueError("--picture and --save-plan are of the plan for a memory; name it with --gpu-memory")
    question = StepQuestion(
        tuple(options.backbones),
        options.image_size,
        options.batch_size,
        options.precision,
        options.frames,
        options.fusion_method,
    )
    console = Console()
    with console.status("counting the step, and planning it ..."):
        answer = StepAnswer(question)
    console.print(str(question))
    console.print(_table(options.gpu_memory, answer))
    if options.gpu_memory is None:
        return 0
    return _answer(console, options, answer)


def _table(memory_bytes: int | None, answer: StepAnswer) -> Table:
    table = Table()
    table.add_column("plan")
    for column in ("peak", "of the baseline", "time"):
        table.add_column(column, justify="right")
    if memory_bytes is not None:
        table.add_column("fits", justify="center")
    for name, point in answer.points.items():
        row = [
            name,
            format_bytes(point.peak_bytes),
            f"{point.peak_bytes / answer.baseline.peak_bytes:.0%}",
            f"x {point.time_ratio:.2f}",
        ]
        if memory_bytes is not None:
            row.append("yes" if point.peak_bytes <= memory_bytes else "no")
        table.add_row(*row)
    return table


def _answer(console: Console, options: argparse.Namespace, answer: StepAnswer) -> int:
    if not answer.fits(options.gpu_memory):
        console.print(answer.refusal(options.gpu_memory))
        return 1
    with console.status("planning for that memory ..."):
        plan = answer.plan(options.gpu_memory)
    for sentence in answer.describe(plan, options.gpu_memory):
        console.print(sentence)
    if options.show_plan:
        console.print(str(plan))
    if options.picture is not None:
        draw_plan(plan, options.picture)
        console.print(f"The plan is drawn in {options.picture}.")
    if options.save_plan is not None:
        plan.save(options.save_plan)
        console.print(f"The plan is saved in {options.save_plan}.")
    return 0
