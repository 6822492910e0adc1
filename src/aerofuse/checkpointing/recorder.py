"""A torch function mode that sees every call of a unit, and writes down how results can be made again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from aerofuse.checkpointing.in_place import run_with_in_place_backward
from aerofuse.checkpointing.operations import (
    CHEAP,
    DROPOUT,
    LOOKED_THROUGH,
    MATRIX_PRODUCTS,
    REPEATABLE,
    BatchNormCall,
    CallNames,
    dropout_arguments,
    dropout_noise,
    replay_batch_norm,
    stack_shape,
    stacked_factors,
    written_over,
)
from aerofuse.checkpointing.recompute_graph import RecomputeGraph
from aerofuse.checkpointing.recompute_nodes import RecomputeNode, layout_of
from aerofuse.checkpointing.snapshot import Autocast, RandomState
from aerofuse.memory.fake import tensors_of

# From the name of a call and the function that makes its result again, the function to use.
Watch = Callable[[str, Callable[..., Tensor]], Callable[..., Tensor]]


class CallRecorder(TorchFunctionMode):
    """Sees the calls of one run of one unit, or of linked ones, and fills `graph`.

    The results of the calls in `save` are saved, and those of all others have nodes where they can; without `save`
    only cheap calls have. `watch` may replace the function of a node, to see it, until the first unit has ended.
    """

    def __init__(self, inputs: Tensor, save: Collection[str] | None, no_cache: bool, watch: Watch | None) -> None:
        super().__init__()
        self._save = save
        self._watch = watch
        self._names = CallNames()
        self._num_casts = 0
        self._device = inputs.device
        autocast = Autocast.capture(inputs.device)
        self._lower = autocast.lower_precision(inputs.device)
        self.graph = RecomputeGraph(inputs, autocast, no_cache)

    def link(self, inputs: Tensor) -> None:
        """The unit has ended, and the next one begins with its output."""
        self._names = CallNames()
        self._num_casts = 0
        self._watch = None
        node = self.graph.find(inputs)
        if node is not None:
            node.links_units = True

    def settle(self, output: Tensor | None) -> None:
        """The last unit has ended: choose what is saved, free the rest."""
        self.graph.settle(output, cheap_only=self._save is None)
        self.graph.offer()

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        function = getattr(func, "__name__", "")
        if function in LOOKED_THROUGH:  # half of all calls
            return func(*args, **(kwargs or {}))
        keywords = dict(kwargs or {})
        name = self._names.next(function)
        if function == DROPOUT:
            return self._dropout(name, func, args, keywords)
        if targets := written_over(func, args, keywords):
            return self._write(name, func, function, targets, args, keywords)
        if self._lower is not None and function in MATRIX_PRODUCTS:
            # Autocast would do the same out of sight, and its copies would be saved.
            args = [self._cast(argument) for argument in args]
            keywords = {key: self._cast(argument) for key, argument in keywords.items()}
        if function == "matmul" and (factors := stacked_factors(args, keywords)):
            return self._product_of_stacks(name, factors)
        if self._may_be_repeated(name, function):
            if function == "batch_norm":
                return self._batch_norm(name, func, BatchNormCall(*args, **keywords))
            return self._repeatable(name, func, args, keywords)
        versions = [(tensor, tensor._version) for tensor in tensors_of((*args, *keywords.values()))]
        output = func(*args, **keywords)
        for tensor, version in versions:
            if tensor._version != version:
                self.graph.forget(tensor)
        for tensor in tensors_of([output]):
            self.graph.register(tensor)
        return output

    def _may_be_repeated(self, name: str, function: str) -> bool:
        if self._save is None:
            return function in CHEAP
        return function in REPEATABLE and name not in self._save

    def _repeatable(
        self,
        name: str,
        func: Callable[..., Any],
        args: Sequence[Any],
        keywords: dict[str, Any],
        random: RandomState | None = None,
    ) -> Any:
        self.graph.begin_call()
        output = run_with_in_place_backward(func, args, keywords)
        saved = self._save is not None and name in self._save
        if isinstance(output, Tensor) and self.graph.register(output) and not saved:
            self._remember(name, output, self.graph.write(func, args, keywords, output, random))
        return output

    def _product_of_stacks(self, name: str, factors: Mapping[str, Tensor]) -> Tensor:
        """Return what `matmul` does out of sight, step by step, so that the copies it makes have nodes."""
        stacks = []
        for side, factor in factors.items():
            self.graph.register(factor)
            stacks.append(self._repeatable(f"{name}.{side}", Tensor.reshape, (factor, stack_shape(factor)), {}))
        product: Tensor
        if self._may_be_repeated(name, "bmm"):
            product = self._repeatable(name, torch.bmm, stacks, {})
        else:
            product = torch.bmm(*stacks)
            self.graph.register(product)
        return product.view(*factors["left"].shape[:-1], factors["right"].shape[-1])

    def _batch_norm(self, name: str, func: Callable[..., Any], call: BatchNormCall) -> Tensor:
        self.graph.begin_call()
        if call.can_be_replayed():
            output, *statistics = call.run()
            for statistic in statistics:
                self.graph.register(statistic)
            node = self.graph.write(replay_batch_norm, (call.input, *statistics, call.weight, call.bias), {}, output)
        else:
            output = func(
                call.input,
                call.running_mean,
                call.running_var,
                call.weight,
                call.bias,
                call.training,
                call.momentum,
                call.eps,
            )
            node = self.graph.write(func, call.without_running_statistics(), {}, output)
        self.graph.register(output)
        self._remember(name, output, node)
        return output

    def _remember(self, name: str, output: Tensor, node: RecomputeNode) -> None:
        if self._watch is not None:
            node.function = self._watch(name, node.function)
        if self._save is None:
            node.value = output.detach()  # whether it is worth its bytes is known at the end
        self.graph.remember(name, output, node)

    def _write(
        self,
        name: str,
        func: Callable[..., Any],
        function: str,
        targets: list[Tensor],
        args: Sequence[Any],
        keywords: dict[str, Any],
    ) -> Any:
        """Make a call that writes over `targets`."""
        function = function.removesuffix("_")
        known = function in CHEAP and bool(args) and args[0] is targets[0]
        arguments = list(tensors_of((*args, *keywords.values())))
        references = [self.graph.refer(argument) for argument in args[1:]]
        named = {key: self.graph.refer(argument) for key, argument in keywords.items()}
        self.graph.begin_write(targets, arguments, known=known)
        in_place_backward = self.graph.knows_what_was_there or function == "relu"
        output = (run_with_in_place_backward if in_place_backward else _call)(func, args, keywords)
        node = self.graph.end_write(func, references, named, targets[0])
        if node is not None and self._may_be_repeated(name, function):
            self._remember(name, targets[0], node)
        return output

    def _dropout(self, name: str, func: Callable[..., Any], args: Sequence[Any], keywords: dict[str, Any]) -> Any:
        inputs, probability, training, in_place = dropout_arguments(*args, **keywords)
        if not training or probability == 0 or inputs.device.type != "cpu" or not 0 < probability < 1:
            # Elsewhere one fused kernel draws the mask, a byte an element, which autograd saves.
            if in_place:
                return self._write(name, func, DROPOUT, [inputs], args, keywords)
            output = func(*args, **keywords)
            self.graph.register(output)
            return output
        # What the CPU's dropout does in one call, in two, so that the mask has a node: 4 bytes an element.
        random = RandomState.capture(self._device)
        like = torch.empty_like(inputs)
        arguments = (like.size(), like.stride(), like.dtype, probability)
        noise = self._repeatable(f"{name}.noise", dropout_noise, arguments, {}, random)
        if in_place:
            return self._write(name, Tensor.mul_, "mul_", [inputs], (inputs, noise), {})
        return self._repeatable(name, torch.mul, (inputs, noise), {})

    def _cast(self, argument: Any) -> Any:
        if not isinstance(argument, Tensor) or argument.dtype != torch.float32 or argument.is_leaf:
            return argument
        casts = self.graph.lower_precision_of(argument)
        key = (*layout_of(argument), argument._version)
        if key not in casts:
            name = f"cast.{self._num_casts}"
            self._num_casts += 1
            casts[key] = self._repeatable(name, Tensor.to, (argument, self._lower), {})
        return casts[key]


def _call(func: Callable[..., Any], args: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
    return func(*args, **keywords)
