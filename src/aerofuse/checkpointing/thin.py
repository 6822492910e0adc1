"""Keeping chosen results of a unit: the others are computed again, tensor by tensor, when autograd asks for them.

While a unit runs, a torch function mode sees every call. The result of one that is not to be kept is remembered as a
recipe: the function, and where its arguments come from. When autograd saves such a result, the recipe is saved in
its place, and nothing of the unit is run again but the calls that lead from what is kept to the tensor asked for. So
no random state is replayed, no statistics are updated twice, and none of the 50 to 150 microseconds per operation of a
dispatch mode are spent, which `torch.utils.checkpoint.create_selective_checkpoint_contexts` needs.

What a mode cannot see into (custom autograd functions, scripted code) is simply kept.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, UntypedStorage
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from aerofuse.checkpointing.lean import run_lean
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
from aerofuse.checkpointing.recipes import Kept, Recipe, Saved, View, depends_on, layout_of, storage_key, unpack
from aerofuse.checkpointing.recompute import hand_over
from aerofuse.checkpointing.surroundings import Autocast, RandomState

# From the name of a call and the function that makes its result again, the function to use.
Watch = Callable[[str, Callable[..., Tensor]], Callable[..., Tensor]]


@dataclass(frozen=True)
class Call:
    """One call inside a unit whose result could be computed again.

    `sources` are the calls whose results it reads; `saved` says whether autograd wants the result, `is_output`
    whether it is what the unit returns.
    """

    name: str
    num_bytes: int
    sources: tuple[str, ...]
    saved: bool
    is_output: bool


class _Recorder(TorchFunctionMode):
    """Sees the calls of one run of one unit, and what autograd saves meanwhile."""

    def __init__(
        self, inputs: Tensor, keep: Collection[str] | None, sparing: bool = False, watch: Watch | None = None
    ) -> None:
        super().__init__()
        self._keep = keep
        self._sparing = sparing
        self._watch = watch
        self._names = CallNames()
        self._autocast = Autocast.capture(inputs.device)
        self._lower = self._autocast.lower_precision(inputs.device)
        self._device = inputs.device
        # By storage, for as long as it lives; its address may be that of another one afterwards.
        self._alive: dict[int, weakref.ref[UntypedStorage]] = {}
        self._recipes: dict[int, Recipe] = {}
        self._references: dict[int, list[Kept]] = {}
        self._saved: set[int] = set()
        # What was saved while the current call ran: it may have been the call's own result.
        self._just_saved: dict[int, list[Saved]] = {}
        self._saved_recipes: dict[Recipe, None] = {}
        self._called: dict[Recipe, str] = {}
        self._casts: dict[int, dict[tuple[Any, ...], Tensor]] = {}
        self._num_casts = 0

    # ----- calls

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
                self._register(tensor)
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
        self._just_saved.clear()
        output = run_lean(func, args, keywords)
        kept = self._keep is not None and name in self._keep
        if isinstance(output, Tensor) and self._register(output) and not kept:
            self._remember(name, output, self._recipe(func, args, keywords, output, random))
        return output

    def _product_of_stacks(self, name: str, factors: Mapping[str, Tensor]) -> Tensor:
        """What `matmul` does out of sight, step by step, so that the copies it makes have recipes."""
        stacks = []
        for side, factor in factors.items():
            self._register(factor)
            stacks.append(self._repeatable(f"{name}.{side}", Tensor.reshape, (factor, stack_shape(factor)), {}))
        product: Tensor
        if self._may_be_repeated(name, "bmm"):
            product = self._repeatable(name, torch.bmm, stacks, {})
        else:
            product = torch.bmm(*stacks)
            self._register(product)
        return product.view(*factors["left"].shape[:-1], factors["right"].shape[-1])

    def _batch_norm(self, name: str, func: Callable[..., Any], call: BatchNormCall) -> Tensor:
        self._just_saved.clear()
        if call.can_be_replayed():
            output, *statistics = call.run()
            for statistic in statistics:
                self._register(statistic)
            recipe = self._recipe(replay_batch_norm, (call.input, *statistics, call.weight, call.bias), {}, output)
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
            recipe = self._recipe(func, call.without_running_statistics(), {}, output)
        self._register(output)
        self._remember(name, output, recipe)
        return output

    def _recipe(
        self,
        func: Callable[..., Any],
        args: Sequence[Any],
        keywords: Mapping[str, Any],
        output: Tensor,
        random: RandomState | None = None,
    ) -> Recipe:
        references = [self._refer(argument) for argument in args]
        named = {key: self._refer(argument) for key, argument in keywords.items()}
        return Recipe(func, references, named, self._autocast, output, random, shares=not self._sparing)

    def _register(self, tensor: Tensor) -> bool:
        """Know the storage from now on; whether it is a new one."""
        storage = tensor.untyped_storage()
        key = storage_key(tensor)
        if key in self._alive or key in self._references:
            return False
        self._alive[key] = weakref.ref(storage, partial(self._forget, key))
        return True

    def _forget(self, key: int, _reference: weakref.ref[UntypedStorage]) -> None:
        self._alive.pop(key, None)
        self._recipes.pop(key, None)
        self._casts.pop(key, None)
        self._saved.discard(key)

    def _remember(self, name: str, output: Tensor, recipe: Recipe) -> None:
        """`recipe` makes the storage of `output`, also where the call itself has saved its result."""
        if self._watch is not None:
            recipe.function = self._watch(name, recipe.function)
        if self._keep is None:
            recipe.value = output.detach()  # whether it is worth its bytes is known at the end
        key = storage_key(output)
        self._recipes[key] = recipe
        self._called[recipe] = name
        for saved in self._just_saved.pop(key, ()):
            saved.replace(recipe)
            self._saved_recipes[recipe] = None
            self._saved.discard(key)

    def _refer(self, argument: Any) -> Any:
        """Where an argument comes from."""
        if isinstance(argument, Tensor):
            key = storage_key(argument)
            recipe = self._recipes.get(key)
            if recipe is not None and recipe.dtype == argument.dtype:
                return View(recipe, argument)
            kept = Kept(argument)
            self._references.setdefault(key, []).append(kept)
            return kept
        if isinstance(argument, (list, tuple)):
            return type(argument)(self._refer(item) for item in argument)
        return argument

    def _in_place(
        self, name: str, func: Callable[..., Any], function: str, args: Sequence[Any], keywords: dict[str, Any]
    ) -> Any:
        target = args[0] if args else None
        if not isinstance(target, Tensor):
            return func(*args, **keywords)
        key = storage_key(target)
        recipe = self._recipes.pop(key, None)
        whole = recipe is not None and recipe.layout == layout_of(target)
        remembered = whole and function in CHEAP and self._may_be_repeated(name, function)
        if recipe is not None and remembered:
            arguments = [View(recipe, target), *(self._refer(argument) for argument in args[1:])]
            named = {key: self._refer(argument) for key, argument in keywords.items()}
        for kept in self._references.pop(key, ()):
            # Recipes that were written down before need what was there before.
            kept.tensor = kept.tensor.clone()
            kept.version = kept.tensor._version
        if recipe is not None:
            recipe.value = None
        self._just_saved.clear()
        output = func(*args, **keywords)
        if recipe is not None and remembered:
            recipe = Recipe(func, arguments, named, self._autocast, target, copies_first=True, shares=not self._sparing)
            self._remember(name, target, recipe)
        return output

    def _dropout(self, name: str, func: Callable[..., Any], args: Sequence[Any], keywords: dict[str, Any]) -> Any:
        inputs, probability, training = dropout_arguments(*args, **keywords)
        if not training or probability == 0 or inputs.device.type != "cpu" or not 0 < probability < 1:
            # Elsewhere one fused kernel draws the mask, a byte an element, which autograd keeps.
            output = func(*args, **keywords)
            self._register(output)
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
        self._register(argument)
        casts = self._casts.setdefault(storage_key(argument), {})
        key = (*layout_of(argument), argument._version)
        if key not in casts:
            name = f"cast.{self._num_casts}"
            self._num_casts += 1
            casts[key] = self._repeatable(name, Tensor.to, (argument, self._lower), {})
        return casts[key]

    def link(self, inputs: Tensor) -> None:
        """The unit has ended, and the next one begins with its output."""
        self._names = CallNames()
        self._num_casts = 0
        self._watch = None
        recipe = self._recipes.get(storage_key(inputs))
        if recipe is not None:
            recipe.links_units = True

    # ----- saved tensors

    def pack(self, tensor: Tensor) -> Any:
        key = storage_key(tensor)
        recipe = self._recipes.get(key)
        if recipe is not None and recipe.dtype == tensor.dtype:
            saved = Saved(View(recipe, tensor))
            self._saved_recipes[recipe] = None
        else:
            saved = Saved(Kept(tensor))
            self._saved.add(key)
            self._just_saved.setdefault(key, []).append(saved)
        return hand_over(saved, unpack, tensor)

    def calls(self, output: Tensor) -> list[Call]:
        """The calls so far whose results have recipes."""
        last = self._recipes.get(storage_key(output))
        return [
            Call(
                name,
                recipe.num_bytes,
                tuple(self._called[source] for source in recipe.sources() if isinstance(source, Recipe)),
                recipe in self._saved_recipes,
                recipe is last,
            )
            for recipe, name in self._called.items()
        ]

    def settle(self, inputs: Tensor, output: Tensor | None) -> None:
        """The unit has ended: choose what is kept, let the rest go."""
        self._casts.clear()
        held = {*self._saved, storage_key(inputs)}
        if output is not None:
            # The next unit holds it, so it need not be computed again.
            key = storage_key(output)
            held.add(key)
            recipe = self._recipes.get(key)
            if recipe is not None and recipe.dtype == output.dtype:
                recipe.keep(output)
        if self._keep is None:
            self._keep_instead_of_larger(held)
        for recipe in self._called:
            if not recipe.is_kept:
                recipe.value = None
        for recipe in self._saved_recipes:
            recipe.require()
        self._alive.clear()
        self._recipes.clear()
        self._called.clear()
        self._references.clear()

    def _keep_instead_of_larger(self, held: set[int]) -> None:
        """Keep a saved tensor rather than recompute it, where that alone would hold something at least as large.

        An attention's softmax is an example: autograd wants its result, and nobody but its recipe the scores.
        """
        sizes = {key: storage.nbytes() for key, born in self._alive.items() if (storage := born()) is not None}
        for root in [key for key in self._references if key in sizes and key not in held]:
            users = [recipe for recipe in self._saved_recipes if depends_on(recipe, root)]
            if not users or users[0].value is None:
                continue
            first = users[0]
            if first.num_bytes <= sizes[root] and all(
                not depends_on(recipe, root, unless=first) for recipe in users[1:]
            ):
                first.keep(users[0].value)


def run_thinned(
    run: Callable[[Tensor], Tensor],
    inputs: Tensor,
    keep: Collection[str] | None = None,
    sparing: bool = False,
    watch: Watch | None = None,
    *,
    linked: Sequence[Callable[[Tensor], Tensor]] = (),
) -> Tensor:
    """`run(inputs)`, keeping what is dear to compute, or where given the results of the calls named in `keep`.

    What is computed on the way to a tensor that autograd asks for is held until the others that need it have been
    asked for; with `sparing` it is let go and computed once more: the least memory at the most time.

    The units in `linked` follow, treated alike; their inputs are computed again from `inputs` and from what the units
    between keep. `watch` may replace the function that makes a call's result again, to see it, in the first unit.
    """
    recorder = _Recorder(inputs, keep, sparing, watch)
    output: Tensor | None = None
    try:
        with recorder, saved_tensors_hooks(recorder.pack, unpack):
            output = run(inputs)
            for following in linked:
                recorder.link(output)
                output = following(output)
    finally:
        # Also when a second run is stopped half way: what it saved so far is used.
        recorder.settle(inputs, output)
    return output


def list_calls(run: Callable[[Tensor], Tensor], inputs: Tensor) -> list[Call]:
    """The calls that `run(inputs)` makes and that could be made again, in order."""
    recorder = _Recorder(inputs, keep=())
    with recorder, saved_tensors_hooks(recorder.pack, unpack):
        output = run(inputs)
    calls = recorder.calls(output)
    recorder.settle(inputs, output)
    return calls
