"""What memory is used for."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """What a tensor's memory is used for, in the order of the tables.

    - `PARAMETERS`: the model's parameters and buffers.
    - `GRADIENTS`: what parameters hold as their gradient; while it is still being computed it is a temporary.
    - `OPTIMIZER_STATE`: what the optimiser keeps from step to step.
    - `INPUTS`: the batch.
    - `ACTIVATIONS`: born in a forward, also in one that is repeated inside the backward; autocast's copies of
      the weights in low precision, which live until the backward has used them, are among them.
    - `TEMPORARIES`: born in the backward or in the optimiser's step, gradients of activations above all.
    """

    PARAMETERS = "parameters"
    GRADIENTS = "gradients"
    OPTIMIZER_STATE = "optimizer_state"
    INPUTS = "inputs"
    ACTIVATIONS = "activations"
    TEMPORARIES = "temporaries"
