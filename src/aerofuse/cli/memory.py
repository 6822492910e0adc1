"""`aerofuse memory`: does a training step fit, with which plan, and how much slower is it?"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from aerofuse.backbones.create import create_backbone
from aerofuse.backbones.families import FAMILIES, family_of
from aerofuse.checkpointing.budgets import format_bytes, parse_bytes
from aerofuse.checkpointing.model_plan import Prediction
from aerofuse.checkpointing.planner import Planner
from aerofuse.checkpointing.timing import Estimated
from aerofuse.data.labels import ClassLists
from aerofuse.models.architecture import hybrid_architecture
from aerofuse.reporting.plan_picture import draw_plan

# What networks reach on one large GPU of the day: products per second, and bytes per second. Estimated times depend
# on their ratio, which differs little from one GPU to the next.
_FLOPS_PER_SECOND = {"float32": 4e13, "bf16": 2e14}
_BYTES_PER_SECOND = 1.5e12
# Sizes of heads that make no difference here: FGVC-Aircraft's variants, and some airlines.
_CLASSES = ClassLists(tuple(map(str, range(100))), tuple(map(str, range(12))))

_EXAMPLES = """examples:
  aerofuse memory convnext_base
  aerofuse memory convnext_base swin_base_patch4_window7_224 --batch-size 16 --precision bf16 --gpu-memory 20GiB

Nothing of the model's size is allocated: bytes are counted on fake tensors. Times are estimates for a large GPU;
on your own device, plan_checkpointing measures them (docs/planner.md)."""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the subcommand."""
    parser = commands.add_parser(
        "memory",
        help="does a training step fit, with which plan, and how much slower?",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("backbones", nargs="+", metavar="BACKBONE", help="one backbone, or the two of a hybrid")
    parser.add_argument("--image-size", type=int, default=224, metavar="PX", help="side of the images (default: 224)")
    parser.add_argument("--frames", type=int, default=16, help="frames of a clip, for swin3d (default: 16)")
    parser.add_argument("--batch-size", type=int, default=16, help="images per step (default: 16)")
    parser.add_argument("--precision", choices=["float32", "bf16"], default="float32", help="(default: float32)")
    parser.add_argument("--gpu-memory", type=parse_bytes, metavar="SIZE", help="what there is, such as 20GiB")
    parser.add_argument("--fusion-method", default="concat", help="of a hybrid (default: concat)")
    parser.add_argument("--show-plan", action="store_true", help="print what each unit keeps under the chosen plan")
    parser.add_argument("--picture", type=Path, metavar="PNG", help="draw the plan that --gpu-memory leads to")
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class _Question:
    model: nn.Module
    input_shape: tuple[int, ...]
    input_dtype: torch.dtype


def run(options: argparse.Namespace) -> int:
    """Print the table; status 1 where nothing fits into the memory named."""
    question = _ask(options)
    console = Console()
    with console.status("counting the step, and planning it ..."):
        planner = Planner(
            question.model,
            question.input_shape,
            optimizer="adamw",
            precision=options.precision,
            input_dtype=question.input_dtype,
            stopwatch=Estimated(_FLOPS_PER_SECOND[options.precision], _BYTES_PER_SECOND),
        )
        least, curve, unchecked = planner.least(), planner.curve(), planner.unchecked
    shape = " x ".join(map(str, question.input_shape))
    console.print(f"{' + '.join(options.backbones)}, {shape}, {options.precision}, AdamW")
    console.print(_table(options.gpu_memory, unchecked, least, curve))
    if options.gpu_memory is None:
        return 0
    return _answer(console, options, planner, unchecked, least)


def _ask(options: argparse.Namespace) -> _Question:
    names: Sequence[str] = options.backbones
    if len(names) > 2:
        raise ValueError(f"{len(names)} backbones are given; name one, or the two of a hybrid")
    if options.picture is not None and options.gpu_memory is None:
        raise ValueError("--picture draws the plan for a memory; name it with --gpu-memory")
    if options.batch_size < 1 or options.image_size < 1 or options.frames < 1:
        raise ValueError("--batch-size, --image-size and --frames must be at least 1")
    clips = [name for name in names if FAMILIES[family_of(name)].input_dims == 5]
    if clips and len(names) == 2:
        raise ValueError(f"{clips[0]} takes clips, so it cannot be half of a hybrid, which takes images")
    size = options.image_size
    with torch.device("meta"):
        if len(names) == 2:
            model: nn.Module = hybrid_architecture(names[0], names[1], options.fusion_method, 0.3, 0.1, size).build(
                _CLASSES
            )
            return _Question(model.train(), (options.batch_size, 3, size, size), torch.uint8)
        model = create_backbone(names[0], image_size_px=size, drop_path=0.1).train()
    frames = (options.frames,) if clips else ()
    return _Question(model, (options.batch_size, 3, *frames, size, size), torch.float32)


def _table(memory_bytes: int | None, unchecked: Prediction, least: Prediction, curve: Sequence[Prediction]) -> Table:
    table = Table()
    table.add_column("plan")
    for column in ("peak", "of the unchecked", "time"):
        table.add_column(column, justify="right")
    if memory_bytes is not None:
        table.add_column("fits", justify="center")
    points = {"no checkpointing": unchecked}
    for limit in (1.05, 1.10, 1.20):
        fitting = [point for point in curve if 1 < point.time_ratio <= limit]
        if fitting:
            points[f"at most {limit - 1:.0%} slower"] = min(fitting, key=lambda point: point.peak_bytes)
    points["least memory"] = least
    for name, point in points.items():
        row = [
            name,
            format_bytes(point.peak_bytes),
            f"{point.peak_bytes / unchecked.peak_bytes:.0%}",
            f"x {point.time_ratio:.2f}",
        ]
        if memory_bytes is not None:
            row.append("yes" if point.peak_bytes <= memory_bytes else "no")
        table.add_row(*row)
    return table


def _answer(
    console: Console, options: argparse.Namespace, planner: Planner, unchecked: Prediction, least: Prediction
) -> int:
    memory = format_bytes(options.gpu_memory)
    fixed_bytes = planner.fixed_bytes
    if least.peak_bytes > options.gpu_memory:
        room = options.gpu_memory - fixed_bytes
        batch = int(options.batch_size * room / (least.peak_bytes - fixed_bytes))
        hint = f"a batch of about {batch} would" if batch >= 1 else "no batch would"
        console.print(f"It does not fit into {memory}; {hint} (the model alone takes {format_bytes(fixed_bytes)}).")
        return 1
    with console.status("planning for that memory ..."):
        plan = planner.plan(options.gpu_memory)
    if plan.keeps_everything:
        console.print(f"It fits into {memory} without checkpointing: {format_bytes(unchecked.peak_bytes)}.")
    else:
        console.print(
            f"It fits into {memory} with a plan: peak {format_bytes(plan.predicted.peak_bytes)}, "
            f"about {plan.predicted.time_ratio - 1:.0%} slower."
        )
    for name, point in (("without checkpointing", unchecked), ("with the plan that holds the least", least)):
        batch = int(options.batch_size * (options.gpu_memory - fixed_bytes) / (point.peak_bytes - fixed_bytes))
        console.print(f"Largest batch {name}: about {batch}.")
    console.print("Leave some room for the work space of kernels and for fragments: 5 to 10 % on a GPU.")
    if options.show_plan:
        console.print(str(plan))
    if options.picture is not None:
        draw_plan(plan, options.picture)
        console.print(f"The plan is drawn in {options.picture}.")
    return 0
