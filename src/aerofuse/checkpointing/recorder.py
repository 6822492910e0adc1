"""A torch function mode that sees every call of a unit, and writes down how results can be made again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
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
from aerofuse.checkpointing.recompute_nodes import PackedTensor, RecomputeNode
from aerofuse.checkpointing.snapshot import Autocast, RandomState
from aerofuse.checkpointing.tensors import layout_of
from aerofuse.memory.fake import tensors_of

# From the name of a call and the function that makes its result again, the function to use.
Watch = Callable[[str, Callable[..., Tensor]], Callable[..., Tensor]]


class CallRecorder(TorchFunctionMode):
    """Sees the calls of one run of one unit, or of linked ones, and fills `graph`, which `settle` ends.

    The run may come in parts, each within `part`.

    The results of the calls in `save` are saved, and those of all others have nodes where they can; without `save`
    only cheap calls have. `watch` may replace the function of a node, to see it, until the first unit has ended.
    """

    def __init__(
        self, inputs: Tensor, save: Collection[str] | None, no_cache: bool = False, watch: Watch | None = None
    ) -> None:
        super().__init__()
        self._save: Collection[str] = save or ()
        self._is_cheap_only = save is None
        self._repeatable = CHEAP if save is None else REPEATABLE
        self._watch = watch
        self._names = CallNames()
        autocast = Autocast.capture(inputs.device)
        self._lower = autocast.lower_precision(inputs.device)
        self.graph = RecomputeGraph(inputs, autocast, no_cache)

    @contextmanager
    def part(self) -> Iterator[None]:
        """What autograd saves in the block is saved, or how to compute it."""
        with self, saved_tensors_hooks(self.graph.pack, PackedTensor.unpack):
            yield

    def link(self, inputs: Tensor) -> None:
        """The unit has ended, and the next one begins with its output."""
        self._names = CallNames()
        self._watch = None
        self.graph.link(inputs)

    def settle(self, output: Tensor | None) -> None:
        """The last unit has ended, or was stopped half way, without an output."""
        self.graph.settle(output, cheap_only=self._is_cheap_only)

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        function = getattr(func, "__name__", "")
        if function in LOOKED_THROUGH:  # half of all calls
            return func(*args, **(kwargs or {}))
        keywords = dict(kwargs or {})
        name = self._names.next(function)
        if function == DROPOUT:
            return self._dropout(name, func, args, keywords)
        if targets := written_over(func, args, keywords):
            return self._write(name, func, targets, args, keywords)
        if self._lower is not None and function in MATRIX_PRODUCTS:
            # Autocast would do the same out of sight, and its copies would be saved.
            args = [self._cast(argument) for argument in args]
            keywords = {key: self._cast(argument) for key, argument in keywords.items()}
        if function == "matmul" and (factors := stacked_factors(args, keywords)):
            return self._product_of_stacks(name, factors)
        updates = function == "instance_norm" and keywords.get("running_mean") is not None  # as F.instance_norm has it
        if updates or not self._may_be_repeated(name, function):
            return self._other(func, args, keywords)
        if function == "batch_norm":
            return self._batch_norm(name, func, args, keywords)
        return self._repeat(name, func, args, keywords)

    def _may_be_repeated(self, name: str, function: str) -> bool:
        return function in self._repeatable and name not in self._save

    def _other(self, func: Callable[..., Any], args: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """Make a call whose result is saved. It may write over an argument unasked."""
        versions = [(tensor, tensor._version) for tensor in tensors_of((*args, *keywords.values()))]
        output = func(*args, **keywords)
        for tensor, version in versions:
            if tensor._version != version:
                self.graph.forget(tensor)
        for tensor in tensors_of([output]):
            self.graph.register(tensor)
        return output

    def _repeat(
        self,
        name: str,
        func: Callable[..., Any],
        args: Sequence[Any],
        keywords: Mapping[str, Any],
        random: RandomState | None = None,
    ) -> Any:
        """Make a call whose result can be made again."""
        self.graph.begin_call()
        output = run_with_in_place_backward(func, args, keywords)
        if isinstance(output, Tensor) and self.graph.register(output) and name not in self._save:
            self._remember(name, output, self.graph.write(func, args, keywords, output, random))
        return output

    def _remember(self, name: str, output: Tensor, node: RecomputeNode) -> None:
        if self._watch is not None:
            node.function = self._watch(name, node.function)
        if self._is_cheap_only:
            node.value = output.detach()  # whether it is worth its bytes is known at the end
        self.graph.remember(name, output, node)

    def _product_of_stacks(self, name: str, factors: Mapping[str, Tensor]) -> Tensor:
        """Return what `matmul` does out of sight, step by step, so that the copies it makes have nodes."""
        stacks = []
        for side, factor in factors.items():
            self.graph.register(factor)
            stacks.append(self._repeat(f"{name}.{side}", Tensor.reshape, (factor, stack_shape(factor)), {}))
        product: Tensor
        if self._may_be_repeated(name, "bmm"):
            product = self._repeat(name, torch.bmm, stacks, {})
        else:
            product = self._other(torch.bmm, stacks, {})
        return product.view(*factors["left"].shape[:-1], factors["right"].shape[-1])

    def _batch_norm(
        self, name: str, func: Callable[..., Any], args: Sequence[Any], keywords: Mapping[str, Any]
    ) -> Tensor:
        call = BatchNormCall(*args, **keywords)
        self.graph.begin_call()
        if call.can_be_replayed():
            output, *statistics = call.run()
            for statistic in statistics:
                self.graph.register(statistic)
            node = self.graph.write(replay_batch_norm, (call.input, *statistics, call.weight, call.bias), {}, output)
        else:
            output = func(*args, **keywords)
            node = self.graph.write(func, call.without_running_statistics(), {}, output)
        self.graph.register(output)
        self._remember(name, output, node)
        return output

    def _write(
        self,
        name: str,
        func: Callable[..., Any],
        targets: list[Tensor],
        args: Sequence[Any],
        keywords: Mapping[str, Any],
    ) -> Any:
        """Make a call that writes over `targets`."""
        function = getattr(func, "__name__", "").removesuffix("_")
        known = function in CHEAP and bool(args) and args[0] is targets[0]
        arguments = list(tensors_of((*args, *keywords.values())))
        references = [self.graph.refer(argument) for argument in args[1:]]
        named = {key: self.graph.refer(argument) for key, argument in keywords.items()}
        self.graph.begin_write(targets, arguments, known=known)
        in_place_backward = self.graph.knows_what_was_there or function == "relu"
        output = run_with_in_place_backward(func, args, keywords) if in_place_backward else func(*args, **keywords)
        node = self.graph.end_write(func, references, named, targets[0])
        if node is not None and self._may_be_repeated(name, function):
            self._remember(name, targets[0], node)
        return output

    def _dropout(self, name: str, func: Callable[..., Any], args: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        inputs, probability, training, in_place = dropout_arguments(*args, **keywords)
        if not training or inputs.device.type != "cpu" or not 0 < probability < 1:
            # Elsewhere one fused kernel draws the mask, a byte an element, which autograd saves.
            if in_place:
                return self._write(name, func, [inputs], args, keywords)
            return self._other(func, args, keywords)
        # What the CPU's dropout does in one call, in two, so that the mask has a node: 4 bytes an element.
        random = RandomState.capture(inputs.device)
        like = torch.empty_like(inputs)
        arguments = (like.size(), like.stride(), like.dtype, probability)
        noise = self._repeat(f"{name}.noise", dropout_noise, arguments, {}, random)
        if in_place:
            return self._write(name, Tensor.mul_, [inputs], (inputs, noise), {})
        return self._repeat(name, torch.mul, (inputs, noise), {})

    def _cast(self, argument: Any) -> Any:
        if not isinstance(argument, Tensor) or argument.dtype != torch.float32 or argument.is_leaf:
            return argument
        casts = self.graph.casts_of(argument)
        key = (*layout_of(argument), argument._version)
        if key not in casts:
            casts[key] = self._repeat(self._names.next("cast"), Tensor.to, (argument, self._lower), {})
        return casts[key]
