"""A torch function mode that sees every call of a unit, and writes down how results can be made again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from aerofuse.checkpointing.in_place import run_lean
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
)
from aerofuse.checkpointing.recompute_graph import RecipeBook
from aerofuse.checkpointing.recompute_nodes import Recipe, View, layout_of
from aerofuse.checkpointing.snapshot import Autocast, RandomState

# From the name of a call and the function that makes its result again, the function to use.
Watch = Callable[[str, Callable[..., Tensor]], Callable[..., Tensor]]


class CallRecorder(TorchFunctionMode):
    """Sees the calls of one run of one unit, or of linked ones, and fills `book`.

    The results of the calls in `keep` are kept, and those of all others have recipes where they can; without `keep`
    only cheap calls have. `watch` may replace the function of a recipe, to see it, until the first unit has ended.
    """

    def __init__(self, inputs: Tensor, keep: Collection[str] | None, sparing: bool, watch: Watch | None) -> None:
        super().__init__()
        self._keep = keep
        self._watch = watch
        self._names = CallNames()
        self._num_casts = 0
        self._device = inputs.device
        autocast = Autocast.capture(inputs.device)
        self._lower = autocast.lower_precision(inputs.device)
        self.book = RecipeBook(autocast, sparing)

    def link(self, inputs: Tensor) -> None:
        """The unit has ended, and the next one begins with its output."""
        self._names = CallNames()
        self._num_casts = 0
        self._watch = None
        recipe = self.book.find(inputs)
        if recipe is not None:
            recipe.links_units = True

    def settle(self, inputs: Tensor, output: Tensor | None) -> None:
        """The last unit has ended: choose what is kept, let the rest go."""
        self.book.settle(inputs, output, cheap_only=self._keep is None)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        function = getattr(func, "__name__", "")
        if function in LOOKED_THROUGH:  # half of all calls
            return func(*args, **(kwargs or {}))
        keywords = dict(kwargs or {})
        name = self._names.next(function)
        if function == DROPOUT:
            return self._dropout(name, func, args, keywords)
        if function.endswith("_") and not function.endswith("__"):
            return self._in_place(name, func, function[:-1], args, keywords)
        if function == "__setitem__":
            return self._in_place(name, func, "", args, keywords)
        if self._lower is not None and function in MATRIX_PRODUCTS:
            # Autocast would do the same out of sight, and its copies would be kept.
            args = [self._cast(argument) for argument in args]
            keywords = {key: self._cast(argument) for key, argument in keywords.items()}
        if function in CHEAP and keywords.get("inplace"):
            # An activation in place saves a copy of its input; out of place, the input itself, which has a recipe.
            keywords["inplace"] = False
        if function == "matmul" and (factors := stacked_factors(args, keywords)):
            return self._product_of_stacks(name, factors)
        if self._may_be_repeated(name, function):
            if function == "batch_norm":
                return self._batch_norm(name, func, BatchNormCall(*args, **keywords))
            return self._repeatable(name, func, args, keywords)
        output = func(*args, **keywords)
        for tensor in output if isinstance(output, (list, tuple)) else (output,):
            if isinstance(tensor, Tensor):
                self.book.register(tensor)
        return output

    def _may_be_repeated(self, name: str, function: str) -> bool:
        if self._keep is None:
            return function in CHEAP
        return function in REPEATABLE and name not in self._keep

    def _repeatable(
        self,
        name: str,
        func: Callable[..., Any],
        args: Sequence[Any],
        keywords: dict[str, Any],
        random: RandomState | None = None,
    ) -> Any:
        self.book.begin_call()
        output = run_lean(func, args, keywords)
        kept = self._keep is not None and name in self._keep
        if isinstance(output, Tensor) and self.book.register(output) and not kept:
            self._remember(name, output, self.book.write(func, args, keywords, output, random))
        return output

    def _product_of_stacks(self, name: str, factors: Mapping[str, Tensor]) -> Tensor:
        """What `matmul` does out of sight, step by step, so that the copies it makes have recipes."""
        stacks = []
        for side, factor in factors.items():
            self.book.register(factor)
            stacks.append(self._repeatable(f"{name}.{side}", Tensor.reshape, (factor, stack_shape(factor)), {}))
        product: Tensor
        if self._may_be_repeated(name, "bmm"):
            product = self._repeatable(name, torch.bmm, stacks, {})
        else:
            product = torch.bmm(*stacks)
            self.book.register(product)
        return product.view(*factors["left"].shape[:-1], factors["right"].shape[-1])

    def _batch_norm(self, name: str, func: Callable[..., Any], call: BatchNormCall) -> Tensor:
        self.book.begin_call()
        if call.can_be_replayed():
            output, *statistics = call.run()
            for statistic in statistics:
                self.book.register(statistic)
            recipe = self.book.write(replay_batch_norm, (call.input, *statistics, call.weight, call.bias), {}, output)
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
            recipe = self.book.write(func, call.without_running_statistics(), {}, output)
        self.book.register(output)
        self._remember(name, output, recipe)
        return output

    def _remember(self, name: str, output: Tensor, recipe: Recipe) -> None:
        if self._watch is not None:
            recipe.function = self._watch(name, recipe.function)
        if self._keep is None:
            recipe.value = output.detach()  # whether it is worth its bytes is known at the end
        self.book.remember(name, output, recipe)

    def _in_place(
        self, name: str, func: Callable[..., Any], function: str, args: Sequence[Any], keywords: dict[str, Any]
    ) -> Any:
        target = args[0] if args else None
        if not isinstance(target, Tensor):
            return func(*args, **keywords)
        recipe = self.book.take(target)
        whole = recipe is not None and recipe.layout == layout_of(target)
        remembered = whole and function in CHEAP and self._may_be_repeated(name, function)
        if recipe is not None and remembered:
            arguments = [View(recipe, target), *(self.book.refer(argument) for argument in args[1:])]
            named = {key: self.book.refer(argument) for key, argument in keywords.items()}
        self.book.protect_readers(target)
        if recipe is not None:
            recipe.value = None
        self.book.begin_call()
        output = func(*args, **keywords)
        if recipe is not None and remembered:
            self._remember(name, target, self.book.write_in_place(func, arguments, named, target))
        return output

    def _dropout(self, name: str, func: Callable[..., Any], args: Sequence[Any], keywords: dict[str, Any]) -> Any:
        inputs, probability, training = dropout_arguments(*args, **keywords)
        if not training or probability == 0 or inputs.device.type != "cpu" or not 0 < probability < 1:
            # Elsewhere one fused kernel draws the mask, a byte an element, which autograd keeps.
            output = func(*args, **keywords)
            self.book.register(output)
            return output
        # What the CPU's dropout does in one call, in two, so that the mask has a recipe: 4 bytes an element.
        random = RandomState.capture(self._device)
        like = torch.empty_like(inputs)
        arguments = (like.size(), like.stride(), like.dtype, probability)
        noise = self._repeatable(f"{name}.noise", dropout_noise, arguments, {}, random)
        return self._repeatable(name, torch.mul, (inputs, noise), {})

    def _cast(self, argument: Any) -> Any:
        if not isinstance(argument, Tensor) or argument.dtype != torch.float32 or argument.is_leaf:
            return argument
        casts = self.book.lower_precision_of(argument)
        key = (*layout_of(argument), argument._version)
        if key not in casts:
            name = f"cast.{self._num_casts}"
            self._num_casts += 1
            casts[key] = self._repeatable(name, Tensor.to, (argument, self._lower), {})
        return casts[key]
