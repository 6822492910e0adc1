"""Where in the model a training step is."""

from __future__ import annotations

from bisect import bisect_right
from enum import StrEnum
from typing import Any, Self

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from aerofuse.memory.torch_private import in_backward, next_node_number, node_number, running_node


class StepPhase(StrEnum):
    """What a training step is doing."""

    FORWARD = "forward"
    BACKWARD = "backward"
    RECOMPUTATION = "recomputation"
    OPTIMIZER = "optimizer step"


class Location:
    """A context manager that follows a training step through the modules of `model`.

    Nothing is attached to the model: the hooks are torch's global ones, for the time of the context. The backward
    is followed by the numbers that its nodes got in the forward, so that its graph stays as it is. For nodes that
    reentrant checkpointing makes inside the backward, the module named may be a wrong one.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer | None = None) -> None:
        self._optimizer = optimizer
        self._names = {id(module): name for name, module in model.named_modules()}
        self._owners = {
            id(parameter): name
            for name, module in model.named_modules()
            for parameter in module.parameters(recurse=False)
        }
        self._model = model  # ids stay unique while it lives
        self._running: list[str] = []
        self._in_optimizer = False
        self._handles: list[RemovableHandle] = []
        # The module that makes the nodes from each number on, rising; None is outside of the model.
        self._first_nodes: list[int] = []
        self._makers: list[str | None] = []

    def __enter__(self) -> Self:
        self._handles = [
            register_module_forward_pre_hook(self._before_forward),
            register_module_forward_hook(self._after_forward, always_call=True),
        ]
        if self._optimizer is not None:
            self._handles.append(self._optimizer.register_step_pre_hook(self._before_step))
            self._handles.append(self._optimizer.register_step_post_hook(self._after_step))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @property
    def phase(self) -> StepPhase:
        """Return what the step is doing now.

        A recomputation is told from the rest of the backward by a module that runs its forward, or by gradients
        that are recorded; a backward that is itself differentiated is therefore taken for one.
        """
        if in_backward():
            return StepPhase.RECOMPUTATION if self._running or torch.is_grad_enabled() else StepPhase.BACKWARD
        return StepPhase.OPTIMIZER if self._in_optimizer else StepPhase.FORWARD

    def describe(self) -> str:
        """Return the phase and the innermost module, such as `backward of stages.2.blocks.1`."""
        phase = self.phase
        if phase is StepPhase.OPTIMIZER:
            return str(phase)
        module = self._running[-1] if self._running else self._module_of_running_node()
        if module is None:
            return f"{phase} outside of the model"
        return f"{phase} of {module or 'the model'}"

    def _module_of_running_node(self) -> str | None:
        node = running_node()
        if node is None:
            return None
        parameter = getattr(node, "variable", None)
        if parameter is not None:  # a node that adds to a gradient belongs to no forward
            return self._owners.get(id(parameter))
        place = bisect_right(self._first_nodes, node_number(node)) - 1
        return self._makers[place] if place >= 0 else None

    def _before_forward(self, module: nn.Module, _inputs: Any) -> None:
        name = self._names.get(id(module))
        if name is not None:
            self._running.append(name)
            self._note_maker()

    def _after_forward(self, module: nn.Module, _inputs: Any, _outputs: Any) -> None:
        if id(module) in self._names:
            self._running.pop()
            self._note_maker()

    def _note_maker(self) -> None:
        if in_backward():
            return  # on CUDA another thread runs it, which numbers nodes for itself
        self._first_nodes.append(next_node_number())
        self._makers.append(self._running[-1] if self._running else None)

    def _before_step(self, *_: object) -> None:
        self._in_optimizer = True

    def _after_step(self, *_: object) -> None:
        self._in_optimizer = False
