"""Whether a model's checkpointing changes anything, tried on one real batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from aerofuse.checkpointing.choosing import without_checkpointing
from aerofuse.checkpointing.tensors import tensors_in
from aerofuse.memory.step import put_back, sum_of_outputs


def verify_checkpointing(model: nn.Module, *inputs: Any, loss: Callable[[Any], Tensor] = sum_of_outputs) -> list[str]:
    """Return what differs in a training step on `inputs` with checkpointing from one without: none is right.

    Named are the loss, gradients, buffers and the random state. Both steps run on the real model; afterwards
    parameters, buffers, gradients, training mode and random state are as before.

    State that a forward pass keeps outside of buffers and of random generators of its modules, such as a counter in
    Python or NumPy's generator, is advanced twice by ranges that are computed again. This finds it.
    """
    found = _outcome(model, inputs, loss)
    with without_checkpointing(model):
        expected = _outcome(model, inputs, loss)
    names = dict.fromkeys((*expected, *found))
    return [
        name
        for name in names
        if name not in found or name not in expected or not torch.equal(found[name], expected[name])
    ]


def _outcome(model: nn.Module, inputs: tuple[Any, ...], loss: Callable[[Any], Tensor]) -> dict[str, Tensor]:
    with put_back(model, tensors_in(inputs)[0].device):
        model.train().zero_grad()
        value = loss(model(*inputs))
        value.backward()
        gradients = {f"gradient of {name}": one.grad for name, one in model.named_parameters() if one.grad is not None}
        buffers = {f"buffer {name}": buffer.clone() for name, buffer in model.named_buffers()}
        return {"loss": value.detach(), **gradients, **buffers, "random state": torch.get_rng_state()}
