"""Several processes for one training stage: start them, shard the model, and gather its state.

With FSDP2 (torch's `fully_shard`) each process holds its shard of the weights, gradients and optimiser state of one
model. The method is the third stage of ZeRO (Rajbhandari et al., 2020, arXiv 1910.02054).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.run import main as torchrun
from torch.optim import Optimizer

from aerofuse.common.params import load_section
from aerofuse.models.aircraft_model import AircraftModel
from aerofuse.training.params import LaunchParams

logger = logging.getLogger(__name__)

_WHOLE = state_dict.StateDictOptions(full_state_dict=True, cpu_offload=True)


def launch(stage: Callable[[], object], *command: str) -> None:
    """Run a stage here, or start `launch.processes` processes that each run `python -m *command`.

    A process that torchrun has started runs the stage itself, so several machines work too:
    `torchrun --nnodes 2 --nproc-per-node 4 ... -m stages.train train_stage_c`.
    """
    processes = load_section(LaunchParams, "launch").processes
    # torchrun, and `accelerate launch` through it, sets this variable in each process that it starts.
    if "LOCAL_RANK" in os.environ or processes == 1:
        stage()
        return
    logger.info("training in %d processes", processes)
    # Each process would otherwise use all cores of the machine.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // processes)))
    torchrun(["--standalone", f"--nproc-per-node={processes}", "-m", *command])


def make_accelerator(mixed_precision: str) -> Accelerator:
    """Return the accelerator of this process, which joins the processes that torchrun has started.

    On CPUs accelerate joins them only where it is told to; else each would train the whole, and write over the others.
    """
    on_cpus = "LOCAL_RANK" in os.environ and not torch.accelerator.is_available()
    return Accelerator(cpu=on_cpus, mixed_precision=mixed_precision)


def shard(model: AircraftModel) -> None:
    """Shard the model over the processes, in place. Make the optimiser afterwards, from the new parameters.

    A backbone's weights are gathered while it runs forward, and again while it runs backward. They are not gathered
    per unit, because a plan for gradient checkpointing may compute any unit of the backbone again.
    """
    for backbone in model.backbones().values():
        fully_shard(backbone)
    fully_shard(model)


def is_sharded(model: nn.Module) -> bool:
    """Return whether this process holds only a shard of the model."""
    return isinstance(model, FSDPModule)


def whole_state(model: nn.Module, optimizer: Optimizer) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return both states. All processes call it; of a sharded model only the first process gets them."""
    if not is_sharded(model):
        return model.state_dict(), optimizer.state_dict()
    weights, state = state_dict.get_state_dict(model, optimizer, options=_WHOLE)
    return weights, dict(state)


def whole_weights(model: nn.Module) -> Mapping[str, Tensor]:
    """Return the weights. All processes call it; of a sharded model only the first process gets them."""
    if not is_sharded(model):
        return model.state_dict()
    weights: dict[str, Any] = state_dict.get_model_state_dict(model, options=_WHOLE)
    return weights


def load_whole_weights(model: nn.Module, weights: dict[str, Any]) -> None:
    """Load weights that `whole_weights` returned to the first process. All processes call it with the same weights."""
    if not is_sharded(model):
        model.load_state_dict(weights, strict=True)
        return
    options = state_dict.StateDictOptions(full_state_dict=True, strict=True)
    state_dict.set_model_state_dict(model, weights, options=options)


def load_whole_state(
    model: nn.Module, optimizer: Optimizer, weights: dict[str, Any], optimizer_state: dict[str, Any]
) -> None:
    """Load states that `whole_state` returned to the first process. All processes call it with the same states."""
    if not is_sharded(model):
        model.load_state_dict(weights, strict=True)
        optimizer.load_state_dict(optimizer_state)
        return
    options = state_dict.StateDictOptions(full_state_dict=True, strict=True)
    state_dict.set_state_dict(
        model, optimizer, model_state_dict=weights, optim_state_dict=optimizer_state, options=options
    )
