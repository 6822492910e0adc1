"""Keeping only what is dear of a unit: what is cheap is computed again, tensor by tensor, when autograd asks for it.

While a unit runs, a torch function mode sees every call. The result of a cheap one (normalisation, activation,
scaling, copying, dropout) is remembered as a recipe: the function, and where its arguments come from. When autograd
saves such a result, the recipe is saved in its place, and nothing of the unit is run again but the calls that lead
from what is kept to the tensor asked for. So no random state is replayed, no statistics are updated twice, and none
of the 50 to 150 microseconds per operation of a dispatch mode are spent, which
`torch.utils.checkpoint.create_selective_checkpoint_contexts` needs.

What a mode cannot see into (custom autograd functions, scripted code) is simply kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from aerofuse.checkpointing.operations import (
    CHEAP,
    DROPOUT,
    MATRIX_PRODUCTS,
    dropout_arguments,
    dropout_noise,
    without_running_statistics,
)
from aerofuse.checkpointing.recipes import Kept, Recipe, Saved, View, depends_on, same_layout, storage_key, unpack
from aerofuse.checkpointing.recompute import hand_over
from aerofuse.checkpointing.surroundings import Autocast, RandomState


class _Recorder(TorchFunctionMode):
    """Sees the calls of one run of one unit, and what autograd saves meanwhile."""

    def __init__(self, inputs: Tensor) -> None:
        super().__init__()
        self._autocast = Autocast.capture(inputs.device)
        self._lower = self._autocast.lower_precision(inputs.device)
        self._device = inputs.device
        # By storage. Every storage born here is held until the unit ends, so that no key is used twice.
        self._recipes: dict[int, Recipe] = {}
        self._born: dict[int, Tensor] = {}
        self._references: dict[int, list[Kept]] = {}
        self._saved: set[int] = set()
        # What was saved while the current call ran: it may have been the call's own result.
        self._just_saved: dict[int, list[Saved]] = {}
        self._saved_recipes: dict[Recipe, None] = {}
        self._casts: dict[tuple[Any, ...], Tensor] = {}

    # ----- calls

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        keywords = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name == DROPOUT:
            return self._dropout(func, args, keywords)
        if name in CHEAP:
            # An activation in place saves a copy of its input; out of place, the input itself, which has a recipe.
            if keywords.get("inplace"):
                keywords["inplace"] = False
            return self._cheap(func, args, keywords)
        if name.endswith("_") and not name.endswith("__"):
            return self._in_place(func, name[:-1], args, keywords)
        if name == "__setitem__":
            return self._in_place(func, "", args, keywords)
        if self._lower is not None and name in MATRIX_PRODUCTS:
            # Autocast would do the same out of sight, and its copies would be kept.
            args = [self._cast(argument) for argument in args]
            keywords = {key: self._cast(argument) for key, argument in keywords.items()}
        output = func(*args, **keywords)
        for tensor in output if isinstance(output, (list, tuple)) else (output,):
            if isinstance(tensor, Tensor):
                self._register(tensor)
        return output

    def _cheap(
        self, func: Callable[..., Any], args: Sequence[Any], keywords: dict[str, Any], random: RandomState | None = None
    ) -> Any:
        self._just_saved.clear()
        output = func(*args, **keywords)
        if isinstance(output, Tensor) and self._register(output):
            if getattr(func, "__name__", "") == "batch_norm":
                args, keywords = without_running_statistics(*args, **keywords)
            references = [self._refer(argument) for argument in args]
            named = {key: self._refer(argument) for key, argument in keywords.items()}
            self._remember(output, Recipe(func, references, named, self._autocast, output, random))
        return output

    def _register(self, tensor: Tensor) -> bool:
        """Whether the storage is a new one."""
        key = storage_key(tensor)
        if key in self._born or key in self._references:
            return False
        self._born[key] = tensor.detach()
        return True

    def _remember(self, output: Tensor, recipe: Recipe) -> None:
        """`recipe` makes the storage of `output`, also where the call itself has saved its result."""
        key = storage_key(output)
        self._recipes[key] = recipe
        for saved in self._just_saved.pop(key, ()):
            saved.replace(recipe)
            self._saved_recipes[recipe] = None
            self._saved.discard(key)

    def _refer(self, argument: Any) -> Any:
        """Where an argument comes from."""
        if isinstance(argument, Tensor):
            key = storage_key(argument)
            recipe = self._recipes.get(key)
            if recipe is not None and recipe.value is not None and recipe.value.dtype == argument.dtype:
                return View(recipe, argument)
            kept = Kept(argument)
            self._references.setdefault(key, []).append(kept)
            return kept
        if isinstance(argument, (list, tuple)):
            return type(argument)(self._refer(item) for item in argument)
        return argument

    def _in_place(self, func: Callable[..., Any], name: str, args: Sequence[Any], keywords: dict[str, Any]) -> Any:
        target = args[0] if args else None
        if not isinstance(target, Tensor):
            return func(*args, **keywords)
        key = storage_key(target)
        recipe = self._recipes.pop(key, None)
        whole = recipe is not None and recipe.value is not None and same_layout(recipe.value, target)
        remembered = name in CHEAP and whole
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
            self._remember(target, Recipe(func, arguments, named, self._autocast, target, copies_first=True))
        return output

    def _dropout(self, func: Callable[..., Any], args: Sequence[Any], keywords: dict[str, Any]) -> Any:
        inputs, probability, training = dropout_arguments(*args, **keywords)
        if not training or probability == 0 or inputs.device.type != "cpu" or not 0 < probability < 1:
            # Elsewhere one fused kernel draws the mask, a byte an element, which autograd keeps.
            output = func(*args, **keywords)
            self._register(output)
            return output
        # What the CPU's dropout does in one call, in two, so that the mask has a recipe: 4 bytes an element.
        random = RandomState.capture(self._device)
        like = torch.empty_like(inputs)
        noise = self._cheap(dropout_noise, (like.size(), like.stride(), like.dtype, probability), {}, random)
        return self._cheap(torch.mul, (inputs, noise), {})

    def _cast(self, argument: Any) -> Any:
        if not isinstance(argument, Tensor) or argument.dtype != torch.float32 or argument.is_leaf:
            return argument
        key = (storage_key(argument), argument.size(), argument.stride(), argument.storage_offset(), argument._version)
        if key not in self._casts:
            self._casts[key] = self._cheap(Tensor.to, (argument, self._lower), {})
        return self._casts[key]

    # ----- saved tensors

    def pack(self, tensor: Tensor) -> Any:
        key = storage_key(tensor)
        recipe = self._recipes.get(key)
        if recipe is not None and recipe.value is not None and recipe.value.dtype == tensor.dtype:
            saved = Saved(View(recipe, tensor))
            self._saved_recipes[recipe] = None
        else:
            saved = Saved(Kept(tensor))
            self._saved.add(key)
            self._just_saved.setdefault(key, []).append(saved)
        return hand_over(saved, unpack, tensor)

    def settle(self, inputs: Tensor, output: Tensor | None) -> None:
        """The unit has ended: choose what is kept, let the rest go."""
        self._casts.clear()
        held = {*self._saved, storage_key(inputs)}
        if output is not None:
            # The next unit holds it, so it need not be computed again.
            key = storage_key(output)
            held.add(key)
            recipe = self._recipes.get(key)
            if recipe is not None and recipe.value is not None:
                recipe.keep()
        self._keep_instead_of_larger(held)
        for recipe in self._recipes.values():
            if not recipe.is_kept:
                recipe.value = None
        self._born.clear()
        self._recipes.clear()
        self._references.clear()

    def _keep_instead_of_larger(self, held: set[int]) -> None:
        """Keep a saved tensor rather than recompute it, where that alone would hold something at least as large.

        An attention's softmax is an example: autograd wants its result, and nobody but its recipe the scores.
        """
        for root in [key for key in self._references if key in self._born and key not in held]:
            users = [recipe for recipe in self._saved_recipes if depends_on(recipe, root)]
            if not users or users[0].value is None:
                continue
            first = users[0]
            if first.num_bytes <= self._born[root].untyped_storage().nbytes() and all(
                not depends_on(recipe, root, unless=first) for recipe in users[1:]
            ):
                first.keep()


def run_thinned(run: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """`run(inputs)`, keeping only what is dear to compute."""
    recorder = _Recorder(inputs)
    output: Tensor | None = None
    try:
        with recorder, saved_tensors_hooks(recorder.pack, unpack):
            output = run(inputs)
    finally:
        # Also when a second run is stopped half way: what it saved so far is used.
        recorder.settle(inputs, output)
    return output
