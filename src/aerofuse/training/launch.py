"""Several processes for one training stage, on one machine or on several."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from aerofuse.common.params import load_section
from aerofuse.training.params import LaunchParams

logger = logging.getLogger(__name__)

# What torchrun, and `accelerate launch` through it, tells each process that it starts.
_RANK = "LOCAL_RANK"


def launch(stage: Callable[[], object], module: str) -> None:
    """Run a stage here, or start `launch.processes` processes that each run `python -m module`.

    A process that torchrun has started, here or on another machine, runs its part: so
    `torchrun --nnodes 2 --nproc-per-node 4 ... -m stages.train_stage_c` works on several machines, by torchrun's own
    variables.
    """
    processes = load_section(LaunchParams, "launch").processes
    if _RANK in os.environ or processes == 1:
        stage()
        return
    from torch.distributed.run import main as torchrun

    logger.info("training in %d processes", processes)
    # Each would otherwise take all cores of the machine.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // processes)))
    torchrun(["--standalone", f"--nproc-per-node={processes}", "-m", module])
