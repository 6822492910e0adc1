"""What each unit of a chain holds between its forward and its backward pass, found without running it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from aerofuse.checkpointing.chain import Chain, modules_of
from aerofuse.checkpointing.snapshot import Autocast, statistics_untouched
from aerofuse.memory.torch_private import FakeTensorMode


def held_bytes(chain: Chain, inputs: Tensor) -> list[int]:
    """Bytes of the distinct tensors that each unit saves for its backward pass, parameters and buffers left out.

    Counted on fake tensors: nothing is computed, nothing of the network changes. A tensor that two units save counts
    for the first.
    """
    modules = list(modules_of(chain))
    counted: set[Any] = set()
    sizes: list[int] = []
    alive: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in counted:
            counted.add(storage._cdata)
            alive.append(tensor.detach())  # so that no other tensor takes its place
            sizes[-1] += storage.nbytes()
        return tensor

    # Autocast must not remember the fake copies that it makes of weights.
    autocast = Autocast.capture(inputs.device).restored(cache=False)
    fake_mode = FakeTensorMode(allow_non_fake_inputs=True)
    with fake_mode as mode, torch.enable_grad(), autocast, statistics_untouched(modules):
        for module in modules:
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                # Autograd saves a parameter itself, operations read its fake.
                fake = mode.from_tensor(tensor)
                alive.append(fake)
                counted.update((tensor.untyped_storage()._cdata, fake.untyped_storage()._cdata))
        x: Tensor = mode.from_tensor(inputs)
        counted.add(x.untyped_storage()._cdata)
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            for unit in chain:
                sizes.append(0)
                x = unit.run(x)
    return sizes
