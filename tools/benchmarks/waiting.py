"""How long OpenMP's threads should spin before they sleep: `python -m tools.benchmarks.waiting`.

Training steps of the backbones of the recipe `quick` with several numbers of spins, alone and beside one busy process.
Each number has a process of its own, because OpenMP reads its settings once. Printed is the table of
`docs/training.md`. On two cores it takes three minutes; nothing else should run.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from aerofuse.common.markdown import markdown_table

SPINS = (100_000, 10_000, 1_000, 0)
BACKBONES = ("convnext_thin", "swin_thin")
_BATCH_SIZE, _SIDE_PX = 32, 96  # those of the recipe


def images_per_second(name: str, steps: int) -> float:
    """Return the median over training steps, after two to warm up."""
    import torch  # only where OpenMP's settings are those to be measured

    from aerofuse.backbones.backbone import create_backbone

    backbone = create_backbone(name, image_size_px=_SIDE_PX).train()
    optimizer = torch.optim.AdamW(backbone.parameters())
    images, seconds = torch.randn(_BATCH_SIZE, 3, _SIDE_PX, _SIDE_PX), []
    for _ in range(steps + 2):
        start = time.perf_counter()
        backbone(images).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    return _BATCH_SIZE / statistics.median(seconds[2:])


def measure(spins: int, steps: int) -> list[float]:
    """Return the images a second of each backbone, measured in a process whose threads spin so often."""
    command = [sys.executable, "-m", "tools.benchmarks.waiting", "--steps", str(steps), "--here"]
    environment = os.environ | {"GOMP_SPINCOUNT": str(spins)}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return [float(word) for word in done.stdout.split()]


@contextmanager
def busy_process() -> Iterator[None]:
    """Keep one core busy meanwhile."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all numbers of spins, or print the images a second of this process."""
    parser = argparse.ArgumentParser(prog="python -m tools.benchmarks.waiting", description=__doc__)
    parser.add_argument("--steps", type=int, default=40, help="training steps of each backbone (default: %(default)s)")
    parser.add_argument("--here", action="store_true", help="in this process, whose threads wait as it was told")
    options = parser.parse_args(arguments)
    if options.here:
        sys.stdout.write(" ".join(str(images_per_second(name, options.steps)) for name in BACKBONES) + "\n")
        return
    alone = [measure(spins, options.steps) for spins in SPINS]
    with busy_process():
        beside = [measure(spins, options.steps) for spins in SPINS]
    rows = [
        [f"{spins:,}", *(f"{speed:.0f}" for speed in (*first, *second))]
        for spins, first, second in zip(SPINS, alone, beside, strict=True)
    ]
    header = [f"{name}, {when}" for when in ("alone", "beside a busy process") for name in BACKBONES]
    sys.stdout.write(markdown_table(["spins", *header], rows, "rrrrr") + "\n")


if __name__ == "__main__":
    main()
